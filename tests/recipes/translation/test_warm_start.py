import pytest
import torch
from scipy.sparse import csr_matrix

from recipes.translation import dice_table, make_mbart, near_translations


def test_counts_of_pairs():
    pairs = [([0, 1], [4]), ([0, 0], [4, 5]), ([2], [5])]
    table = dice_table(pairs, num_tokens=6)
    assert table[0, 4] == pytest.approx(2 * 2 / (2 + 2 + 1))
    assert table.nnz == 1  # one meeting is chance


def test_translations_become_near_and_lengths_stay():
    torch.manual_seed(0)
    dice = csr_matrix(([0.9, 0.9], ([0, 1], [3, 4])), shape=(6, 6))
    before = torch.randn(6, 64)
    after = near_translations(before, dice)
    assert torch.allclose(after.norm(dim=1), before.norm(dim=1))
    nearness = torch.nn.functional.cosine_similarity(after[:, None], after[None], dim=-1)
    assert nearness[0, 3] > 0.7
    assert nearness[1, 4] > 0.7
    assert nearness[0, 4].abs() < 0.4
    assert torch.allclose(after[[2, 5]], before[[2, 5]])


def test_the_decoder_begins_by_looking_near_its_own_place(data, model_config):
    torch.manual_seed(0)
    sizes = {"width": 64, "heads": 4, "ffn": 64, "decoder_layers": 1}
    model = make_mbart(model_config(**sizes), data).model.eval()
    ids = torch.randint(20, 300, (64, 12))  # any words
    told = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids}
    looked = model(**told, output_attentions=True).cross_attentions[0].mean(dim=(0, 1))
    distance = (torch.arange(12)[:, None] - torch.arange(12)).abs()
    assert looked[distance == 0].mean() > 2 * looked[distance > 3].mean()


def test_a_width_that_does_not_go(data, model_config):
    with pytest.raises(ValueError, match=r"model\.width.* multiple of 6.*warm_start=false"):
        make_mbart(model_config(width=9, heads=3), data)
    make_mbart(model_config(width=9, heads=3, warm_start=False), data)

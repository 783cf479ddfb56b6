import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from recipes.recommendation import SASRecConfig, load_predictor, make_sasrec, make_synthetic
from tests.recipes.recommendation.conftest import SIZES


@pytest.fixture
def saved(data, tmp_path):
    make_sasrec(SASRecConfig(**SIZES), data).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_encoder_is_an_ordinary_one_and_the_towers_are_the_same(make_model, data, tmp_path):
    module = make_model(data).eval()
    module.save_pretrained(tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path / "encoder")
    table = module.towers.encoder.get_input_embeddings().weight
    torch.testing.assert_close(encoder.get_input_embeddings().weight, table)
    predictor = load_predictor(tmp_path)
    batch = data.collate([data.rows("next", "test")[i] for i in range(4)])
    torch.testing.assert_close(predictor.towers(batch)[0], module.towers(batch)[0])
    torch.testing.assert_close(predictor.towers.all_vectors(), module.towers.all_vectors())


@pytest.mark.parametrize("task", ["next", "rating", "like"])
def test_a_user_gets_what_the_model_puts_first_among_the_unseen(saved, data, task):
    (record,) = load_predictor(saved)(["3"], task=task, top=4)
    made = make_synthetic()
    user = made.user_ids.index("3")
    module = make_sasrec(SASRecConfig(**SIZES), data).eval()
    predictor = load_predictor(saved)
    module.towers.load_state_dict(predictor.towers.state_dict())
    items = torch.from_numpy(made.items[user])[-5:]  # windows of 6, and one place to ask about
    batch = {
        "items": torch.cat([items, torch.ones(1, dtype=torch.long)])[None],
        "ratings": torch.cat([torch.from_numpy(made.ratings[user])[-5:], torch.zeros(1)])[None],
        "user_features": torch.from_numpy(made.user_features[user])[None],
        "target": torch.zeros(1, len(items) + 1, dtype=torch.bool),
    }
    state = module.towers(batch)[0][0, -1]
    vectors = module.towers.all_vectors()
    if task == "next":
        scores = module.towers.user_vectors(state) @ vectors.T
    else:
        scores = module.towers.answers(task, state.expand_as(vectors), vectors)
    scores = scores.detach()
    scores[[0, *made.items[user]]] = -torch.inf
    best = scores.argsort(descending=True)[:4].tolist()
    assert [item["id"] for item in record["items"]] == [made.item_ids[i] for i in best]
    assert record["task"] == task


def test_a_history_may_be_of_ids_and_of_titles_with_commas(saved):
    predictor = load_predictor(saved)
    ids, titles = predictor(["4, 6", "item 4, kind 0, Item 6, kind 2"], top=40)
    assert ids["items"] == titles["items"]
    assert not {"4", "6"} & {item["id"] for item in ids["items"]}
    assert sum(item["score"] for item in ids["items"]) < 1


def test_a_list_is_no_longer_than_what_is_left(saved):
    (record,) = load_predictor(saved)(["5,"], top=1000)
    assert len(record["items"]) == 47
    json.dumps(record)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("nobody", {}, "Expected a user such as '0', '1', '2'"),
        ("4, nothing", {}, "Expected ids or titles .* but got 'nothing'"),
        ("3", {"task": "buy"}, "Expected `task` to be one of 'next', 'rating', 'like'"),
        ("3", {"top": 0}, "Expected `top` to be in"),
    ],
)
def test_what_cannot_be_answered_is_refused(saved, text, options, message):
    with pytest.raises(ValueError, match=message):
        load_predictor(saved)([text], **options)


def test_a_folder_of_another_model_is_refused(saved, tmp_path):
    config = json.loads((saved / "encoder" / "config.json").read_text())
    (saved / "encoder" / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="Expected `encoder` to be one of 'opt', 'bert'"):
        load_predictor(saved)
    with pytest.raises(FileNotFoundError, match=r"no recipe\.json"):
        load_predictor(tmp_path)


def test_a_card_that_does_not_go_with_the_weights_is_refused(saved):
    card = json.loads((saved / "recipe.json").read_text())
    (saved / "recipe.json").write_text(json.dumps(card | {"titles": ["", "only one"]}))
    with pytest.raises(ValueError, match="Expected `titles` and `item_ids`"):
        load_predictor(saved)


def test_histories_of_other_data_are_refused(saved, tmp_path):
    (tmp_path / "other.csv").write_text("user,item,rating,timestamp\n3,a,1,1\n3,b,1,2\n3,c,1,3\n")
    card = json.loads((saved / "recipe.json").read_text())
    card["data"] |= {"source": "files", "path": str(tmp_path / "other.csv")}
    (saved / "recipe.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="Expected the data to have the items of training"):
        load_predictor(saved)(["3"])


def test_weights_that_do_not_fit_are_refused(saved):
    weights = load_file(saved / "towers.safetensors")
    save_file(weights | {"heads.next.weight": torch.zeros(3, 3)}, saved / "towers.safetensors")
    with pytest.raises(RuntimeError, match=r"size mismatch for heads\.next\.weight"):
        load_predictor(saved)

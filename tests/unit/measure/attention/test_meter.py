"""What the meter says of models agrees with what they say themselves, and with autograd."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_attnbal.measure.attention import (
    AttentionMeter,
    attention_entropy,
    head_importance,
    measure_attention,
)
from tests.family_models import BERT, TOKENS, VOCAB


class SelfAttention(nn.Module):
    """Fused, with `groups` query heads per key head."""

    def __init__(self, heads=4, groups=1, width=16, **options):
        super().__init__()
        self.heads, self.groups, self.options = heads, groups, options
        self.query = nn.Linear(width, width)
        self.both = nn.Linear(width, 2 * width // groups)
        self.out = nn.Linear(width, width)

    def split(self, x, heads):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def forward(self, x):
        key, value = self.both(x).chunk(2, -1)
        few = self.heads // self.groups
        self.context = functional.scaled_dot_product_attention(
            self.split(self.query(x), self.heads),
            self.split(key, few),
            self.split(value, few),
            enable_gqa=self.groups > 1,
            **self.options,
        )
        if self.context.requires_grad:
            self.context.retain_grad()
        return self.out(self.context.transpose(1, 2).flatten(2))


def bert(attention, mask=None):
    """(model, its inputs): masks hide the ends of some sequences."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(**BERT, initializer_range=0.5, attn_implementation=attention)
    model = transformers.BertForSequenceClassification(config).train()
    ids = torch.randint(4, VOCAB, (4, TOKENS), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(4, TOKENS, dtype=torch.long) if mask is None else mask
    return model, {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(4)}


def exact_entropy(weights, mask):
    """Per head, from all weights: mean over queries that are no padding."""
    visible = mask[:, None, None, :].expand(weights.shape).bool()
    entropy = attention_entropy(weights, visible)
    return entropy.masked_fill(~mask[:, None, :].bool(), torch.nan).nanmean((0, 2)).tolist()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("lengths", [(8, 8, 8, 8), (8, 5, 3, 6)], ids=["whole", "padded"])
def test_entropy_is_that_of_the_weights_bert_returns(attention, lengths):
    mask = (torch.arange(TOKENS) < torch.tensor(lengths)[:, None]).long()
    reference, inputs = bert("eager", mask)
    weights = reference(**inputs, output_attentions=True).attentions
    model, inputs = bert(attention, mask)
    seen = measure_attention(model, lambda: model(**inputs).loss)
    assert list(seen.entropy) == [f"bert.encoder.layer.{i}.attention.self" for i in range(3)]
    for found, exact in zip(seen.entropy.values(), weights, strict=True):
        assert found == pytest.approx(exact_entropy(exact, mask), abs=1e-5)
        assert max(found) < 0.95  # the weights are far from uniform


def test_fused_and_written_out_attention_agree_on_importance():
    found = []
    for attention in ("sdpa", "eager"):
        model, inputs = bert(attention)
        found.append(measure_attention(model, lambda m=model, i=inputs: m(**i).loss).importance)
    for fused, written in zip(found[0].values(), found[1].values(), strict=True):
        assert fused == pytest.approx(written, abs=1e-4)
        assert math.hypot(*fused) == pytest.approx(1.0)


@pytest.mark.parametrize("groups", [1, 2], ids=["one key head each", "shared key heads"])
def test_importance_is_that_of_autograd(groups):
    model, x = SelfAttention(groups=groups), torch.randn(3, 6, 16)
    seen = measure_attention(nn.Sequential(model), lambda: model(x).square().sum())
    loss = model(x).square().sum()
    (gradient,) = torch.autograd.grad(loss, model.context)
    by_hand = head_importance(model.context.detach(), gradient)
    assert seen.importance["0"] == pytest.approx((by_hand / by_hand.norm()).tolist(), abs=1e-6)


def test_multi_head_attention_of_torch_is_that_of_autograd():
    attention, x = nn.MultiheadAttention(16, 4, batch_first=True), torch.randn(3, 6, 16)
    padding = torch.arange(6) > torch.tensor([5, 3, 2])[:, None]
    _, weights = attention(x, x, x, key_padding_mask=padding, average_attn_weights=False)
    model = nn.ModuleDict({"attention": attention})

    def loss():
        return attention(x, x, x, key_padding_mask=padding, need_weights=False)[0].square().sum()

    seen = measure_attention(model, loss)
    exact = exact_entropy(weights, (~padding).long())
    assert seen.entropy["attention"] == pytest.approx(exact, abs=1e-5)

    value = functional.linear(x, attention.in_proj_weight[32:], attention.in_proj_bias[32:])
    heads = (weights @ value.unflatten(-1, (4, 4)).transpose(1, 2)).detach().requires_grad_()
    attention.out_proj(heads.transpose(1, 2).flatten(2)).square().sum().backward()
    by_hand = head_importance(heads.detach(), heads.grad)
    assert seen.importance["attention"] == pytest.approx(
        (by_hand / by_hand.norm()).tolist(), abs=1e-5
    )


def test_equal_keys_give_one_and_one_strong_key_gives_zero():
    model = SelfAttention()
    uniform = measure_attention(model, lambda: model(torch.ones(2, 6, 16)).sum())
    assert uniform.entropy[""] == pytest.approx((1.0,) * 4)
    x = functional.one_hot(torch.arange(6), 16).float()[None]
    with torch.no_grad():
        model.query.weight.copy_(1e3 * torch.eye(16))
        model.both.weight.copy_(torch.eye(16).repeat(2, 1))
    x = torch.cat([x[..., :4]] * 4, -1)[:, :4]  # token i has its one in dimension i of each head
    sharp = measure_attention(model, lambda: model(x).sum())
    assert sharp.entropy[""] == pytest.approx((0.0,) * 4, abs=1e-4)


def test_causal_attention_is_normalised_by_the_keys_a_query_sees():
    model = SelfAttention(is_causal=True)
    seen = measure_attention(model, lambda: model(torch.ones(2, 6, 16)).sum())
    assert seen.entropy[""] == pytest.approx((1.0,) * 4)


def test_frozen_layers_have_entropy_and_no_importance():
    model, inputs = bert("sdpa")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layer.2" in name or "classifier" in name)
    seen = measure_attention(model, lambda: model(**inputs).loss)
    assert [len(heads) for heads in seen.entropy.values()] == [2, 2, 2]
    assert list(seen.importance) == ["bert.encoder.layer.2.attention.self"]


def test_layers_of_torch_in_eval_mode_are_left_alone():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model.layers[0].eval().requires_grad_(requires_grad=False)
    seen = measure_attention(model, lambda: model(torch.randn(2, 4, 16)).sum())
    assert list(seen.entropy) == ["layers.1.self_attn"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(
            nn.Sequential(SelfAttention(), nn.Linear(3, 3)), "cannot be multiplied", id="after it"
        ),
        pytest.param(SelfAttention(heads=5), "unflatten", id="inside attention"),
    ],
)
def test_after_an_exception_nothing_is_looked_at(model, message):
    with pytest.raises(RuntimeError, match=message), AttentionMeter(model) as meter:
        model(torch.randn(2, 6, 16))
    before = meter.compute()
    SelfAttention()(torch.randn(2, 6, 16))
    assert meter.compute() == before
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_parameters_keep_the_gradients_they_hold():
    model = SelfAttention()
    model.out.weight.grad = torch.full((16, 16), 7.0)
    measure_attention(model, lambda: model(torch.randn(2, 6, 16)).sum())
    assert torch.equal(model.out.weight.grad, torch.full((16, 16), 7.0))
    assert model.query.weight.grad is None


ATTENTIONS = {
    "fused": SelfAttention,
    "torch": lambda: nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True),
}


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_mixed_precision_does_not_matter(kind):
    model, x = ATTENTIONS[kind](), torch.randn(3, 6, 16)
    plain = measure_attention(model, lambda: model(x).square().sum())

    def loss():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(x).float().square().sum()

    mixed = measure_attention(model, loss)
    for name, entropy in plain.entropy.items():
        assert mixed.entropy[name] == pytest.approx(entropy, abs=1e-2)
        assert mixed.importance[name] == pytest.approx(plain.importance[name], abs=3e-2)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_models_in_half_precision(kind):
    model = ATTENTIONS[kind]().bfloat16()
    x = torch.randn(3, 6, 16, dtype=torch.bfloat16)
    seen = measure_attention(model, lambda: model(x).square().sum())
    assert [len(heads) for heads in seen.importance.values()] == [4]


@pytest.mark.parametrize("name", ["samples", "rows"])
def test_wrong_numbers_are_refused(name):
    with pytest.raises(ValueError, match=rf"`{name}` to be in \[1, inf\), but got 0"):
        AttentionMeter(nn.Linear(2, 2), **{name: 0})

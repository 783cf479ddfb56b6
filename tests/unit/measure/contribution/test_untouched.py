"""What happens inside the guard stays inside."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_attnbal.measure import untouched
from tests.unit.measure.contribution.twins import CLASSES, Touchy, record


def seed():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def model():
    seed()
    model = Touchy()
    model.low.eval()
    model.embed.requires_grad_(False)
    model.loss(*batch()).backward()
    return model


def batch():
    return torch.randint(20, (7, 4)), torch.randint(CLASSES, (7,))


def wreck(model):
    """Everything that a block might do."""
    model.train().requires_grad_(True)
    model.loss(*batch()).backward()
    model.zero_grad()
    model.loss(*batch()).backward()
    model.head.eval()
    model.head.register_forward_hook(lambda *_: None)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.add_(1)
    model.ema = torch.ones(6)
    model.extra = nn.Linear(2, 2)
    model.high[0] = nn.Linear(8, 6)
    model.history = []
    model.totals["new"] = 1
    model.seen.reset()
    del model.num_calls


@pytest.mark.parametrize("does_fail", [False, True], ids=["ends", "raises"])
def test_everything_is_put_back(model, does_fail):
    before = record(model)
    tensors = [*model.parameters(), *model.buffers()]
    grads = [p.grad for p in model.parameters()]
    layer = model.high[0]

    def run():
        with untouched(model):
            wreck(model)
            if does_fail:
                raise KeyError("in the block")

    if does_fail:
        with pytest.raises(KeyError, match="in the block"):
            run()
    else:
        run()
    assert record(model) == before
    after = [*model.parameters(), *model.buffers()]
    assert all(a is b for a, b in zip(tensors, after, strict=True))
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
    assert model.high[0] is layer


def test_hooks_from_before_still_run_and_can_still_be_removed(model):
    calls = []
    handle = model.head.register_forward_hook(lambda *_: calls.append(1))
    with untouched(model):
        handle.remove()
        model(batch()[0])
    model(batch()[0])
    assert calls == [1]
    handle.remove()
    model(batch()[0])
    assert calls == [1]


def test_the_block_starts_without_gradients(model):
    with untouched(model):
        assert all(p.grad is None for p in model.parameters())


def test_a_graph_from_before_can_still_be_walked():
    """BatchNorm saves its statistics for the backward pass, and the block changes them."""
    grads = []
    for is_disturbed in (False, True):
        seed()
        model = Touchy()
        loss = model.loss(*batch())
        if is_disturbed:
            with untouched(model):
                model.loss(*batch()).backward()
        loss.backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


def test_a_buffer_that_the_graph_was_written_into_is_freed_of_it():
    class Careless(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x):
            self.mean.mul_(0.9).add_(x * self.weight)
            return self.mean

    model = Careless()
    with untouched(model):
        model(torch.ones(3)).sum().backward()
    assert model.mean.grad_fn is None
    assert not model.mean.requires_grad
    assert model.mean.tolist() == [0.0, 0.0, 0.0]


def test_it_nests(model):
    before = record(model)
    with untouched(model):
        model.train()
        model(batch()[0])
        inner = record(model)
        with untouched(model):
            wreck(model)
        assert record(model) == inner
    assert record(model) == before


def test_nan_comes_back():
    model = nn.Module()
    model.register_buffer("value", torch.tensor([float("nan"), 1.0]))
    with untouched(model):
        model.value.zero_()
    assert torch.isnan(model.value[0])
    assert model.value[1] == 1


def test_cyclic_containers_are_no_problem():
    model = nn.Linear(1, 1)
    model.notes = {"list": []}
    model.notes["list"].append(model.notes)
    with untouched(model):
        model.notes["list"].append(1)
    assert model.notes["list"] == [model.notes]


@pytest.mark.gpu
def test_random_state_of_the_accelerator_comes_back():
    model = nn.Linear(2, 2, device="cuda")
    before = torch.cuda.get_rng_state()
    with untouched(model):
        torch.rand(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)

"""Fingerprints notice one flipped bit; verify says what contradicts the plan."""

import pytest
import torch
from torch import nn

from lightning_attnbal.apply import PlanApplier
from lightning_attnbal.core import Plan
from tests.unit.apply.models import split, stack, step

BLOCKS = ("0", "1", "2", "3")


def test_verify_is_silent_when_the_plan_was_kept():
    model = stack()
    applier = PlanApplier(model, split(model, *BLOCKS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    assert applier.verify(applier.fingerprint()) == ()
    applier.apply(Plan({"0": "frozen", "1": "frozen", "2": "full", "3": "full", "rest": "full"}))
    before = applier.fingerprint()
    step(model, optimizer)
    assert applier.verify(before) == ("unit 'rest' is full, but none of its parameters moved",)


def test_verify_tells_what_moved_and_what_did_not():
    model = stack()
    applier = PlanApplier(model, split(model, *BLOCKS)[:-1])
    applier.apply(Plan({"0": "frozen", "1": "frozen", "2": "full", "3": "full"}))
    before = applier.fingerprint()
    with torch.no_grad():
        bits = model[0].linear.weight.view(torch.int32)
        bits[3, 5] ^= 1
        model[1].norm.running_mean[0] += 1e-3
        model[2].linear.bias[0] += 1e-3
    assert applier.verify(before) == (
        "unit '0' is frozen, but '0.linear.weight' moved",
        "unit '1' is frozen, but '1.norm.running_mean' moved",
        "unit '3' is full, but none of its parameters moved",
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64, torch.int64])
def test_fingerprints_see_one_step_of_the_smallest_size_in_every_dtype(dtype):
    model = nn.Module()
    model.register_buffer("x", torch.ones(3, dtype=dtype))
    applier = PlanApplier(model, [])
    before = applier.fingerprint()
    assert applier.fingerprint() == before
    bits = torch.view_as_real(model.x) if dtype.is_complex else model.x
    smallest = 1 if dtype == torch.int64 else torch.finfo(bits.dtype).eps
    bits.view(-1)[1] += smallest
    assert applier.fingerprint() != before

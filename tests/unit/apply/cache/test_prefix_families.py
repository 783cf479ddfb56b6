"""Cached training is training, on every family of models."""

from __future__ import annotations

import pytest
import torch

from lightning_attnbal.apply.cache import ActivationStore
from lightning_attnbal.measure import UnitTracer, discover_units, order_units
from tests.families import FAMILIES
from tests.unit.apply.cache.prefixed import Twins, traces

SAMPLES = 11
NOTHING_COSTLY = "nothing that costs much runs before the first trained layer"


def _data(family):
    """More samples than a batch of the family holds, padded at random where it has a mask."""
    generator = torch.Generator().manual_seed(0)

    def more(name, leaf):
        shape = (SAMPLES, *leaf.shape[1:])
        if name == "attention_mask":
            lengths = torch.randint(3, leaf.shape[1] + 1, (SAMPLES,), generator=generator)
            return (torch.arange(leaf.shape[1]) < lengths[:, None]).long()
        if leaf.is_floating_point():
            return torch.randn(shape, generator=generator)
        return torch.randint(0, 5 if leaf.dim() == 1 else 50, shape, generator=generator)

    batch = family.batch()
    if "args" in batch:
        return {"args": tuple(more("", leaf) for leaf in batch["args"])}
    return {name: more(name, leaf) for name, leaf in batch.items()}


def _take(data, chosen):
    if "args" in data:
        return {"args": tuple(leaf[chosen] for leaf in data["args"])}
    batch = {name: leaf[chosen] for name, leaf in data.items()}
    if "attention_mask" not in batch:
        return batch
    width = int(batch["attention_mask"].sum(dim=1).max())
    return {name: x[:, :width] if x.dim() > 1 else x for name, x in batch.items()}


def _units(family):
    model = family.build()
    units = discover_units(model)
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(family.loss(model, family.batch()))
    return order_units(units, trace.calls)


def _train(family, units, cached):
    data = _data(family)
    twins = Twins(
        family.build, family.loss, cached=cached, units=units, store=ActivationStore(ram="64MiB")
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        order = torch.randperm(SAMPLES, generator=generator).split(4)
        twins.epoch([_take(data, chosen) for chosen in order])
    twins.close()
    assert traces(twins.model) == []
    return twins


@pytest.mark.parametrize("name", FAMILIES)
def test_middle_cut(name):
    units = _units(FAMILIES[name])
    twins = _train(FAMILIES[name], units, max(2, len(units) // 2))
    assert twins.worst <= 1e-6
    assert twins.reasons == ""
    assert twins.cache.counts.rows_read > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_cut(name):
    units = _units(FAMILIES[name])
    for cached in range(1, len(units)):
        twins = _train(FAMILIES[name], units, cached)
        assert twins.worst <= 1e-6, f"{cached} units cached"
        assert twins.reasons in {"", NOTHING_COSTLY}
        assert twins.cache.counts.rows_read > 0 or twins.reasons == NOTHING_COSTLY

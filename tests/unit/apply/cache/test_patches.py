"""A cached model leaves no trace, and its copies have none."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from lightning_attnbal.apply.cache._patches import (
    Patches,
    compiled_call,
    is_compiled,
    set_compiled_call,
)
from tests.unit.apply.cache.prefixed import Body, Net, Twins, loss_of, samples, shuffled, traces


def _trained(**options):
    twins = Twins(**options)
    twins.train(shuffled(samples(), 3))
    assert traces(twins.model)
    return twins


def test_close_leaves_no_trace_and_can_be_called_twice():
    twins = _trained()
    twins.cache.close()
    twins.cache.close()
    assert traces(twins.model) == []
    assert torch.equal(twins.model(samples()), twins.plain(samples()))


def test_close_in_the_first_step_leaves_no_trace():
    twins = Twins()
    twins.cache.begin_step()
    assert traces(twins.model)
    twins.cache.close()
    assert traces(twins.model) == []


@pytest.mark.parametrize("steps", [0, 1, 15], ids=["watched", "followed", "read"])
def test_exception_in_the_middle_of_a_forward(steps):
    class Failing(Body):
        _fails = False  # no setting

        def between(self, hidden):
            if self._fails:
                self._fails = False
                msg = "no more"
                raise RuntimeError(msg)
            return hidden

    twins = Twins(lambda: Net(Failing()))
    batches = [batch for epoch in shuffled(samples(), 6) for batch in epoch]
    for batch in batches[:steps]:
        twins.step(batch)
    twins.cache.begin_step()
    host = twins.model.body
    host._fails = True
    if steps < 15:
        with pytest.raises(RuntimeError, match="no more"):
            twins.model(batches[0])
    else:  # what fails on read rows is done again without
        twins.model(batches[0])
    host._fails = False
    assert host.training
    for batch in batches[steps:]:
        twins.step(batch)
    assert twins.worst <= 1e-6
    twins.cache.close()
    assert traces(twins.model) == []


def test_own_forward_of_an_instance_is_put_back():
    twins = Twins()
    block = twins.model.body.blocks[0]
    block.forward = lambda hidden: 2 * type(block).forward(block, hidden)
    own = block.forward
    twins.cache.begin_step()
    twins.cache.end_forward(loss_of(twins.model, samples()))
    assert block.forward is not own
    twins.cache.close()
    assert block.forward is own


def _deep(model):
    return copy.deepcopy(model)


def _pickled(model):
    return pickle.loads(pickle.dumps(model))


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [_deep, _pickled, _saved])
def test_copies_are_of_the_plain_model(copied):
    twins = _trained()
    found = copied(twins.model)
    rows = twins.cache.counts.rows
    twins.cache.begin_step()
    torch.testing.assert_close(found(samples()), twins.plain(samples()))
    assert twins.cache.counts.rows == rows
    loss_of(found, samples()).backward()
    assert twins.model.head.weight.grad is None
    assert found.body.blocks[3].forward.__self__ is found.body.blocks[3]


def test_weights_are_saved_as_ever():
    twins = _trained()
    assert twins.model.state_dict().keys() == twins.plain.state_dict().keys()
    file = io.BytesIO()
    torch.save(twins.model.state_dict(), file)
    file.seek(0)
    twins.plain.load_state_dict(torch.load(file))


def test_what_is_compiled_in_place_runs_uncompiled_and_is_put_back():
    module, patches = nn.Linear(2, 2), Patches()
    module.compile(backend="eager")
    call = compiled_call(module)
    assert is_compiled(module)
    patches.replace(module, lambda forward, x: forward(x) + 1)
    assert not is_compiled(module)
    patches.undo()
    assert compiled_call(module) is call
    set_compiled_call(module, None)
    assert not is_compiled(module)
    assert is_compiled(torch.compile(module, backend="eager"))


def test_eval_while_lasts_for_calls_that_start_under_the_condition():
    module, patches, is_on = nn.Dropout(0.5), Patches(), [True]
    patches.eval_while(module, lambda: is_on[0])
    assert torch.equal(module(torch.ones(99)), torch.ones(99))
    assert module.training
    is_on[0] = False
    assert not torch.equal(module(torch.ones(99)), torch.ones(99))
    patches.undo()

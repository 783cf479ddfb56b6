"""What cannot be cached is found out in time, said, and trained as if there were no cache."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.unit.apply.cache.prefixed import (
    CLOSE,
    TOKENS,
    WIDTH,
    Block,
    Body,
    Net,
    loss_of,
    samples,
    shuffled,
)


def _lowest(change):
    """A body whose lowest block is changed."""

    def build():
        body = Body()
        body.blocks[0] = change()
        return Net(body)

    return build


class _Dropping(Block):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def forward(self, hidden):
        return self.drop(super().forward(hidden))


class _Normed(Block):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(TOKENS)

    def forward(self, hidden):
        return self.norm(super().forward(hidden))


@pytest.mark.parametrize(("block", "name"), [(_Dropping, "drop"), (_Normed, "norm")])
def test_layer_in_train_mode(make, block, name):
    twins = make(_lowest(block))
    for model in (twins.plain, twins.model):
        model.body.blocks[0].get_submodule(name).train()
    twins.train(shuffled(samples(), 3))
    assert f"'body.blocks.0.{name}' is in train mode" in twins.reasons
    assert twins.worst <= CLOSE
    assert twins.names == ()


class _BetweenBody(Body):
    """Drops out what goes from one block to the next."""

    def between(self, hidden):
        return functional.dropout(hidden, 0.3)


class _StochasticDepth(Block):
    def forward(self, hidden):
        return super().forward(hidden) if random.random() < 0.7 else hidden


class _Numpy(Block):
    def forward(self, hidden):
        return super().forward(hidden) * float(np.random.rand() + 0.5)


class _Augmenting(Body):
    def forward(self, hidden):
        return super().forward(hidden + 0.1 * torch.randn_like(hidden))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Net(_BetweenBody()),
        lambda: Net(_Augmenting()),
        _lowest(_StochasticDepth),
        _lowest(_Numpy),
    ],
    ids=["dropout between units", "augmentation", "stochastic depth", "numpy"],
)
def test_random_numbers_are_noticed_at_once(make, build):
    twins = make(build)
    twins.train(shuffled(samples(), 3))
    assert "random numbers are drawn in it" in twins.reasons
    assert twins.cache.counts.rows_read == 0
    assert twins.worst == 0.0


class _OwnGenerator(Block):
    """Its generator is nobody else's."""

    generator = torch.Generator().manual_seed(5)

    def forward(self, hidden):
        return super().forward(hidden) + torch.rand(1, generator=self.generator)


def test_hidden_randomness_is_noticed_before_a_row_is_read(make):
    twins = make(_lowest(_OwnGenerator))
    twins.train(shuffled(samples(), 3))
    assert "something in it is random" in twins.reasons or "a stored row differs" in twins.reasons
    assert twins.cache.counts.rows_read == 0


def _noisy(data):
    noise = torch.Generator().manual_seed(11)
    return [
        [x + 0.1 * torch.randn(x.shape, generator=noise) for x in batches]
        for batches in shuffled(data, 3, 2)
    ]


def test_augmentation_in_the_data(make):
    twins = make()
    epochs = _noisy(samples(24))
    twins.train(epochs[:2])
    assert "differ from epoch to epoch" in twins.reasons
    assert twins.worst <= CLOSE
    twins.train(epochs[2:])
    assert twins.cache.counts.rows_read == 0


def test_augmentation_in_the_training_step(make):
    def loss(model, batch):
        return loss_of(model, batch + 0.1 * torch.randn_like(batch))

    twins = make(Net, loss)
    twins.train(shuffled(samples(24), 2, 2))
    assert "differ from epoch to epoch" in twins.reasons
    assert twins.worst <= CLOSE


def test_tokenizer_that_drifts(make):
    class Embedded(Body):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(500, WIDTH).requires_grad_(False)

        def forward(self, ids):
            return super().forward(self.table(ids))

    ids = torch.arange(24)[:, None] + torch.arange(TOKENS)
    twins = make(lambda: Net(Embedded()))
    twins.train([[b + 40 * e for b in x] for e, x in enumerate(shuffled(ids, 3, 2))])
    assert "differ from epoch to epoch" in twins.reasons
    assert twins.worst <= CLOSE


def test_data_that_changes_under_us(make):
    twins = make()
    data = samples()
    twins.train(shuffled(data, 3))
    data[::2] += 0.25
    twins.train(shuffled(data, 3))
    assert twins.worst <= CLOSE
    assert twins.reasons == ""
    assert twins.store.stats.rows == 18


class _InPlace(Block):
    def forward(self, hidden):
        return super().forward(hidden.mul_(0.5))


def test_input_changed_in_place(make):
    twins = make(_lowest(_InPlace))
    twins.train(shuffled(samples(), 2))
    assert "its input is changed in place" in twins.reasons
    assert twins.worst <= CLOSE


class _Counting(Block):
    calls = 0

    def forward(self, hidden):
        self.calls += 1
        return super().forward(hidden) * (1 + 0.1 * (self.calls % 3))


class _Averaging(Block):
    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(1))

    def forward(self, hidden):
        self.average.lerp_(hidden.detach().mean()[None], 0.1)
        return super().forward(hidden) - self.average


class _Noting(Block):
    def forward(self, hidden):
        self.notes = [*getattr(self, "notes", []), len(hidden)]
        return super().forward(hidden)


@pytest.mark.parametrize("block", [_Counting, _Averaging, _Noting])
def test_prefix_with_a_state(make, block):
    twins = make(_lowest(block))
    twins.train(shuffled(samples(), 3))
    assert "it changes its own weights, buffers or attributes" in twins.reasons
    assert twins.cache.counts.rows_read == 0
    assert twins.worst <= CLOSE


class _Lazy(Block):
    """Makes a table when it is first needed, and keeps it."""

    table = None

    def forward(self, hidden):
        if self.table is None:
            self.table = torch.linspace(0, 1, hidden.shape[-1])
        return super().forward(hidden + self.table)


def test_table_made_on_first_use_is_no_state(make):
    twins = make(_lowest(_Lazy))
    twins.train(shuffled(samples(), 4))
    assert twins.reasons == ""
    assert twins.cache.counts.rows_read > 0
    assert twins.worst <= CLOSE


class _Company(Block):
    def forward(self, hidden):
        return super().forward(hidden - hidden.mean(dim=0))


def test_rows_that_depend_on_their_company(make):
    twins = make(_lowest(_Company))
    twins.train(shuffled(samples(), 4))
    assert "a row depends on the others of its batch" in twins.reasons
    assert twins.cache.counts.rows_read == 0
    assert twins.worst <= CLOSE


def test_rows_that_depend_on_their_company_do_not_serve_a_deeper_cut(make):
    twins = make(_lowest(_Company), cached=1)
    epochs = shuffled(samples(), 4)
    twins.train(epochs[:1])  # stored, and never read
    twins.cut(3)
    twins.train(epochs[1:])
    names = [unit.name for unit in twins.units]
    assert next(iter(twins.cache.refused)) == tuple(names[:1])
    assert "a row depends on the others of its batch" in twins.reasons
    assert twins.cache.counts.rows_read == 0
    assert twins.worst <= CLOSE


class _Recurrent(nn.Module):
    """Blocks of the form (L, B, D): the first dimension is time."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.LSTM(WIDTH, WIDTH) for _ in range(4))

    def forward(self, hidden):
        for block in self.blocks:
            hidden = block(hidden)[0]
        return hidden


class _TimeFirst(Net):
    def forward(self, hidden):
        return self.head(self.body(hidden.transpose(0, 1)).mean(dim=0))


def test_time_first(make):
    twins = make(lambda: _TimeFirst(_Recurrent()))
    twins.train(shuffled(samples(24), 4, 2))
    assert "differ from epoch to epoch" in twins.reasons
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read == 0


class _Packed(Net):
    def forward(self, hidden):
        lengths = torch.full((len(hidden),), hidden.shape[1])
        packed = pack_padded_sequence(hidden, lengths, batch_first=True)
        return self.head(pad_packed_sequence(self.body(packed), batch_first=True)[0].mean(dim=1))


class _Nested(Net):
    def forward(self, hidden):
        rows = self.body(torch.nested.as_nested_tensor(list(hidden.unbind())))
        return self.head(torch.stack([row.mean(dim=0) for row in rows.unbind()]))


class _NestedBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden):
        return self.inner(hidden)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: _Packed(_Recurrent()), "is a PackedSequence, whose content cannot be told"),
        (lambda: _Nested(Body(_NestedBlock)), "is a tensor that is not dense"),
    ],
    ids=["packed", "nested"],
)
def test_batches_of_another_kind(make, build, reason):
    twins = make(build)
    twins.train(shuffled(samples(), 2))
    assert reason in twins.reasons
    assert twins.worst <= CLOSE


class _Alternating(Body):
    """Its second block is used every other time."""

    turn = 0

    def forward(self, hidden):
        self.turn += 1
        hidden = self.blocks[0](hidden)
        if self.turn % 2:
            hidden = self.blocks[1](hidden)
        return self.blocks[3](self.blocks[2](hidden))


def test_other_modules_every_other_step(make):
    twins = make(lambda: Net(_Alternating()))
    twins.train(shuffled(samples(), 6))
    assert twins.worst <= CLOSE


class _AuxLater(Net):
    """Its eleventh result depends on what the prefix computed on its way, outside of the host."""

    turn = -100

    def forward(self, hidden):
        out = self.head(self.body(hidden).mean(dim=1))
        self.turn += 1
        return out + (self.body.first.detach().mean() if self.turn == 11 else 0.0)


class _NotingFirst(Body):
    def forward(self, hidden):
        self.first = hidden = self.blocks[0](hidden)
        for block in self.blocks[1:]:
            hidden = block(hidden)
        return hidden


def test_something_read_that_was_not_before_costs_one_step(make):
    twins = make(lambda: _AuxLater(_NotingFirst()))
    twins.train(shuffled(samples(), 3))
    assert twins.worst <= CLOSE
    batch = samples()[:4]
    for model in (twins.plain, twins.model):
        model.turn = 10
    twins.cache.begin_step()
    loss = loss_of(twins.model, batch)
    assert loss.isnan()
    twins.cache.end_forward(loss)
    loss.backward()
    twins.cache.end_backward()
    assert all(not p.grad.any() for p in twins.model.parameters() if p.grad is not None)
    for optimizer in twins.optimizers:
        optimizer.zero_grad()
    loss_of(twins.plain, batch)
    assert "the loss is NaN" in twins.reasons
    twins.train(shuffled(samples(), 2))
    assert twins.worst <= CLOSE


class _AuxInside(Body):
    """From its tenth call on it uses what the first block gave a second time."""

    turn = 0

    def forward(self, hidden):
        self.turn += 1
        first = self.blocks[0](hidden)
        second = self.blocks[1](first)
        if self.turn > 10:
            second = second + first
        return self.blocks[3](self.blocks[2](second))


def test_something_else_read_inside_the_host_costs_nothing(make):
    twins = make(lambda: Net(_AuxInside()))
    twins.train(shuffled(samples(), 6))
    assert "on read rows the model returned" in twins.reasons
    assert twins.worst <= CLOSE


class _Scaled(Body):
    """A trained number of its own between two blocks of the prefix."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def between(self, hidden):
        return hidden * self.scale


def test_something_trained_in_between_gets_its_gradient(make):
    twins = make(lambda: Net(_Scaled()))
    twins.train(shuffled(samples(), 3))
    assert "something below body.blocks.1 is trained" in twins.reasons
    assert twins.worst <= CLOSE
    assert twins.model.body.scale.item() != 1.0


class _Projected(Net):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden):
        return super().forward(self.project(hidden))


def test_something_trained_below_gets_its_gradient(make):
    twins = make(_Projected)
    twins.train(shuffled(samples(), 3))
    assert "needs a gradient" in twins.reasons
    assert twins.worst <= CLOSE


def test_prefix_that_is_trained_goes_on_training(make):
    twins = make()
    for model in (twins.plain, twins.model):
        model.body.blocks[0].requires_grad_(True)
    twins.train(shuffled(samples(), 2))
    assert "parameters of it are trained" in twins.reasons
    assert twins.worst <= CLOSE


class _Collecting(Body):
    """Blocks note something in a list that they are given, which the result depends on."""

    def __init__(self):
        super().__init__(_CollectingBlock)

    def forward(self, hidden):
        notes = []
        for block in self.blocks:
            hidden = block(hidden, notes)
        return hidden + sum(notes)


class _CollectingBlock(Block):
    def forward(self, hidden, notes):
        notes.append(hidden.detach().mean())
        return super().forward(hidden)


def test_side_effects_on_what_is_passed_along(make):
    twins = make(lambda: Net(_Collecting()))
    twins.train(shuffled(samples(), 4))
    assert "the model returned something else" in twins.reasons
    assert twins.cache.counts.rows_read == 0
    assert twins.worst <= CLOSE


class _Tasks(Body):
    """What it does depends on an attribute."""

    task = 0

    def between(self, hidden):
        return hidden + self.task


def test_attribute_of_the_host_is_a_part_of_each_sample(make):
    def loss(model, batch):
        model.body.task = next(turns) // 2 % 2
        return loss_of(model, batch)

    turns = iter(range(10**6))
    twins = make(lambda: Net(_Tasks()), loss)
    twins.train(shuffled(samples(), 8))
    assert twins.worst <= CLOSE
    assert twins.reasons == ""
    assert twins.store.stats.rows > 12
    assert twins.cache.counts.rows_read > 0


class _Carrying(Body):
    """Goes on with the state of the batch before."""

    def forward(self, hidden):
        hidden = hidden + getattr(self, "state", 0.0)
        out = super().forward(hidden)
        self.state = out.detach().mean()
        return out


def test_state_carried_from_batch_to_batch(make):
    twins = make(lambda: Net(_Carrying()))
    twins.train(shuffled(samples(24), 4, 2))
    assert twins.reasons != ""
    assert twins.cache.counts.rows_read == 0


def test_compiled_around_the_host(make):
    twins = make()
    torch._dynamo.reset()
    twins.model.compile(backend="eager")
    twins.train(shuffled(samples(), 1)[:0])
    twins.cache.begin_step()
    loss = loss_of(twins.model, samples())
    twins.cache.end_forward(loss)
    assert "compile its blocks instead" in twins.reasons


def test_unit_that_costs_nothing_is_refused_alone(make):
    class Nothing(Body):
        def __init__(self):
            super().__init__()
            self.blocks[0] = nn.Embedding(50, WIDTH)

    ids = torch.arange(12 * TOKENS).view(12, TOKENS) % 50
    twins = make(lambda: Net(Nothing()), cached=1)
    epochs = shuffled(ids, 5)
    twins.train(epochs[:1])
    assert "nothing that costs much" in twins.reasons
    twins.cut(2)
    twins.train(epochs[1:])
    assert twins.cache.why_not(twins.cache.wanted) is None
    assert twins.cache.counts.rows_read > 0
    assert twins.worst <= CLOSE

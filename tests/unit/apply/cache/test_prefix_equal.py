"""What is read is what would have been computed."""

from __future__ import annotations

import copy
import json
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from lightning_attnbal.apply.cache import ActivationStore
from tests.unit.apply.cache.prefixed import (
    CLOSE,
    ROWS,
    SAMPLES,
    TOKENS,
    WIDTH,
    Block,
    Body,
    Net,
    calls_counted,
    loss_of,
    samples,
    shuffled,
)


@pytest.mark.parametrize("size", [4, 5, SAMPLES, 1], ids="batches of {}".format)
def test_shuffling_and_partial_batches(make, size):
    twins = make()
    twins.train(shuffled(samples(), 5, size))
    assert twins.worst <= CLOSE
    assert twins.reasons == ""
    assert twins.cache.counts.hit_rate > 0.4


def test_prefix_is_not_run_once_all_is_stored(make):
    twins = make()
    twins.train(shuffled(samples(), 4))
    low, high = twins.model.body.blocks[1], twins.model.body.blocks[2]
    with calls_counted(low, high) as calls:
        twins.train(shuffled(samples(), 2))
    assert calls == [0, 6]
    assert twins.worst <= CLOSE


def test_duplicates_in_a_batch(make):
    data = samples(4)[torch.tensor([0, 1, 2, 3, 0, 0, 1])]
    twins = make()
    twins.train(shuffled(data, 5, 3))
    assert twins.worst <= CLOSE
    assert twins.store.stats.rows == 4


@pytest.mark.parametrize("size", [TOKENS, WIDTH], ids=["B = L", "B = D"])
def test_batch_size_equal_to_another_dimension(make, size):
    twins = make()
    twins.train(shuffled(samples(2 * size), 4, size))
    assert twins.worst <= CLOSE
    twins.train(shuffled(samples(2 * size), 3, size - 1))
    assert twins.worst <= CLOSE
    assert twins.reasons == ""
    assert twins.cache.counts.rows_read > 0


class _Indexed(Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, i):
        return samples()[i]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # when pinned to one core
def test_several_workers(make):
    loader = DataLoader(_Indexed(), 4, shuffle=True, num_workers=2)
    twins = make()
    for _ in range(3):
        twins.epoch(list(loader))
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read > 0


def test_engaged_after_some_batches(make):
    twins = make()
    twins.cache.engage(())
    epochs = shuffled(samples(), 4)
    twins.epoch(epochs[0][:2])
    twins.cut(2)
    twins.epoch(epochs[0][2:])
    twins.train(epochs[1:])
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read > 0
    assert twins.reasons == ""


def test_store_too_small_for_all_rows(make):
    twins = make(store=ActivationStore(ram=4000), audit_every=3)
    twins.train(shuffled(samples(), 8))
    assert twins.store.stats.rows_refused > 0
    assert 0 < twins.store.stats.rows < SAMPLES
    assert twins.cache.counts.rows_read > 0
    assert twins.cache.counts.audits > 3
    assert twins.worst <= CLOSE
    assert twins.reasons == ""


def test_spill_to_disk(make, tmp_path):
    twins = make(store=ActivationStore(ram="32KiB", disk="1MiB", folder=tmp_path))
    twins.train(shuffled(samples(96), 4))
    assert twins.store.stats.disk_bytes > 0
    assert twins.cache.counts.hit_rate > 0.5
    assert twins.worst <= CLOSE


def test_rows_of_an_earlier_run(make, tmp_path):
    store = {"ram": "1MiB", "disk": "1MiB", "folder": tmp_path, "keep": True}
    first = make(store=ActivationStore(**store))
    first.train(shuffled(samples(), 2))
    first.close()
    second = make(store=ActivationStore(**store))
    second.train(shuffled(samples(), 2))
    assert second.worst <= CLOSE
    assert second.cache.counts.rows_read > 0  # in the first epoch there is something to read


def test_narrow_rows_are_close(make):
    twins = make(store=ActivationStore(ram="1MiB", dtype="bfloat16"))
    twins.train(shuffled(samples(), 4))
    assert 0 < twins.worst < 1e-2
    assert twins.reasons == ""


def test_cut_up_reads_rows_of_the_shallower_cut(make):
    twins = make(cached=1)
    epochs = shuffled(samples(), 8)
    twins.train(epochs[:3])
    twins.cut(3)
    twins.step(epochs[3][0])  # shows what leaves the deeper prefix
    low, high = twins.model.body.blocks[0], twins.model.body.blocks[2]
    with calls_counted(low, high) as calls:
        twins.train([epochs[3][1:]])
    assert calls == [0, 2]
    twins.train(epochs[4:6])
    twins.cut(1)
    twins.train(epochs[6:])
    assert twins.worst <= CLOSE
    assert twins.reasons == ""


def test_missing_rows_of_a_mixed_batch_start_where_the_shallower_cut_ends(make):
    twins = make(cached=1, audit_every=1000)
    epochs = shuffled(samples(), 8)
    twins.train(epochs[:3])
    twins.cut(3)
    half = len(epochs[3]) // 2
    twins.train([epochs[3][:half], epochs[4][:2]])  # the second shows that batches may be mixed
    low, high = twins.model.body.blocks[0], twins.model.body.blocks[2]
    with calls_counted(low, high) as calls:
        twins.train([epochs[4][2:]])
    assert calls[0] == 0
    assert calls[1] > 0
    twins.train(epochs[5:])
    assert twins.worst <= CLOSE
    assert twins.reasons == ""


def test_samples_stored_in_part_of_one_pass_serve_a_deeper_cut(make):
    """Never read before, and mixed with samples of which nothing is stored."""
    twins = make(cached=1, audit_every=1000)
    epochs = shuffled(samples(24), 4)
    twins.train([epochs[0][:5]])  # the first batch only shows what leaves the prefix
    twins.cut(3)
    low, high = twins.model.body.blocks[0], twins.model.body.blocks[2]
    twins.train([epochs[1][:4]])  # shows what leaves the deeper one, and that samples may be mixed
    assert twins.cache.counts.trials == 2
    low_rows, high_rows = ROWS[id(low)], ROWS[id(high)]
    twins.train([epochs[1][4:]])
    assert ROWS[id(high)] - high_rows == 8
    stored = {bytes(x.numpy()) for batch in epochs[0][1:5] for x in batch}
    new = [x for batch in epochs[1][4:] for x in batch if bytes(x.numpy()) not in stored]
    assert 0 < ROWS[id(low)] - low_rows == len(new) < 8
    twins.train(epochs[2:])
    assert twins.worst <= CLOSE
    assert twins.reasons == ""


def test_cut_down_and_back_reads_what_was_stored(make):
    twins = make(cached=3)
    epochs = shuffled(samples(), 6)
    twins.train(epochs[:3])
    twins.cut(1)
    twins.train(epochs[3:5])  # trains blocks 1 and 2
    twins.cut(3)
    twins.train(epochs[5:])
    assert twins.worst <= CLOSE
    assert twins.reasons == ""


def _step(twins, parameter_change, batch):
    for model in (twins.plain, twins.model):
        parameter_change(model)
    before = twins.worst
    twins.step(batch)
    assert twins.worst == before or twins.worst <= CLOSE


def _in_place(model):
    with torch.no_grad():
        model.body.blocks[0].inner.weight.mul_(1.5)


def _through_data(model):
    model.body.blocks[0].inner.weight.data.mul_(1.5)


def _data_replaced(model):
    weight = model.body.blocks[0].inner.weight
    for factor in (2.0, 0.75):  # twice, so that the first memory may be given away
        weight.data = weight.data * factor


def _loaded(model):
    state = {k: v * 1.5 for k, v in model.body.blocks[0].state_dict().items()}
    model.body.blocks[0].load_state_dict(state)


def _assigned(model):
    state = {k: v * 1.5 for k, v in model.body.blocks[0].state_dict().items()}
    model.body.blocks[0].load_state_dict(state, assign=True)
    model.body.blocks[0].requires_grad_(False)


def _new_parameter(model):
    inner = model.body.blocks[0].inner
    inner.weight = nn.Parameter(inner.weight.detach() * 1.5, requires_grad=False)


def _new_part(model):
    block = model.body.blocks[0]
    block.inner = copy.deepcopy(block.inner)
    with torch.no_grad():
        block.inner.bias.add_(1)


def _inner_hook(model):
    model.body.blocks[0].inner.register_forward_hook(lambda module, args, out: out * 1.5)


def _attribute(model):
    model.body.blocks[0].inner.bias = None


CHANGES = [
    _in_place,
    _through_data,
    _data_replaced,
    _loaded,
    _assigned,
    _new_parameter,
    _new_part,
    _inner_hook,
    _attribute,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__.strip("_"))
def test_stale_rows_are_never_served(make, change):
    twins = make()
    epochs = shuffled(samples(), 6)
    twins.train(epochs[:3])
    read = twins.cache.counts.rows_read
    assert read > 0
    for model in (twins.plain, twins.model):
        change(model)
    twins.epoch(epochs[3])
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read == read
    twins.train(epochs[4:])
    assert twins.worst <= CLOSE
    assert twins.reasons == ""
    assert twins.cache.counts.rows_read > read
    if change is _inner_hook:
        for model in (twins.plain, twins.model):
            model.body.blocks[0].inner._forward_hooks.clear()


def test_a_single_number_written_behind_pytorchs_back_shows_in_the_next_epoch(make):
    twins = make()
    epochs = shuffled(samples(), 5)
    twins.train(epochs[:3])
    for model in (twins.plain, twins.model):
        model.body.blocks[0].inner.weight.data[1, 2] += 1.0  # not among those looked at each time
    twins.train(epochs[3:])
    assert twins.worst <= CLOSE


def test_weights_back_as_they_were(make):
    twins = make()
    epochs = shuffled(samples(), 6)
    twins.train(epochs[:3])
    for factor in (2.0, 0.5):
        for model in (twins.plain, twins.model):
            model.body.blocks[0].inner.weight.data.mul_(factor)
        twins.train(epochs[3:4] if factor == 2 else epochs[4:])
    assert twins.worst <= CLOSE
    assert twins.reasons == ""


def test_prefix_trained_in_between(make):
    twins = make(cached=2)
    epochs = shuffled(samples(), 8)
    twins.train(epochs[:3])
    twins.cut(0)
    twins.epoch(epochs[3])
    twins.cut(2)
    twins.train(epochs[4:])
    assert twins.worst <= CLOSE
    assert twins.reasons == ""


def test_accumulated_gradients(make):
    twins = make()
    twins.train(shuffled(samples(16), 4), accumulate=2)
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read > 0


def test_autocast_on_and_off(make):
    def loss(model, batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_on[0]):
            return loss_of(model, batch).float()

    is_on = [True]
    twins = make(Net, loss)
    epochs = shuffled(samples(), 6)
    twins.train(epochs[:3])
    assert twins.cache.counts.rows_read > 0
    assert twins.worst <= CLOSE
    is_on[0] = False
    twins.train(epochs[3:])
    assert twins.worst <= CLOSE


@pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore::DeprecationWarning")
def test_compiled_blocks_of_the_suffix(make):
    twins = make()
    torch._dynamo.reset()
    for model in (twins.plain, twins.model):
        for block in model.body.blocks[2:]:
            block.compile(backend="eager")
    twins.train(shuffled(samples(), 4))
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read > 0
    assert twins.reasons == ""


class _Checkpointed(Body):
    def forward(self, hidden):
        for i, block in enumerate(self.blocks):
            hidden = checkpoint(block, hidden, use_reentrant=False) if i >= 2 else block(hidden)
        return hidden


def test_checkpointed_suffix(make):
    twins = make(lambda: Net(_Checkpointed()))
    twins.train(shuffled(samples(), 4))
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read > 0


def test_checkpointed_host(make):
    class Whole(Net):
        def forward(self, x):
            return self.head(checkpoint(self.body, x, use_reentrant=False).mean(dim=1))

    twins = make(Whole)
    twins.train(shuffled(samples(), 3))
    with calls_counted(twins.model.body.blocks[0]) as calls:
        twins.train(shuffled(samples(), 2))
    assert calls == [0]  # nor in the backward pass
    assert twins.worst <= CLOSE
    assert twins.reasons == ""


def test_host_called_twice_per_step(make):
    def loss(model, batch):
        first, second = batch
        return (model(first) - model(second)).square().mean() + loss_of(model, first)

    twins = make(Net, loss)
    twins.train(shuffled((samples(), samples(seed=7)), 4))
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read > 0


def test_validation_in_between_is_computed(make):
    twins = make()
    epochs = shuffled(samples(), 4)
    for batches in epochs:
        twins.epoch(batches)
        rows = twins.store.stats.rows
        twins.model.eval()
        twins.plain.eval()
        with torch.no_grad():
            with calls_counted(twins.model.body.blocks[0]) as calls:
                found = twins.model(samples(seed=9))
                again = twins.model(batches[0])
            assert calls == [2]
            torch.testing.assert_close(found, twins.plain(samples(seed=9)))
            torch.testing.assert_close(again, twins.plain(batches[0]))
        assert twins.store.stats.rows == rows
        for model in (twins.model, twins.plain):
            model.train()
            model.body.blocks[:2].eval()
    assert twins.worst <= CLOSE


def test_gradient_free_call_in_a_step_is_computed(make):
    def loss(model, batch):
        with torch.no_grad():
            target = model(batch)
        return loss_of(model, batch) + (model(batch) - target).square().mean()

    twins = make(Net, loss)
    twins.train(shuffled(samples(), 4))
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read > 0


class _Skips(Body):
    """Uses what the prefix computes on its way: smoothly, and not."""

    def forward(self, hidden):
        first = self.blocks[0](hidden)
        second = self.blocks[1](first)
        keep = (first.detach().mean(dim=(1, 2)) > 0).float()[:, None, None]
        third = self.blocks[2](second) * keep
        return self.blocks[3](third)


@pytest.mark.parametrize("is_smooth", [True, False])
def test_results_used_later_are_stored(make, is_smooth):
    class Smooth(_Skips):
        def forward(self, hidden):
            first = self.blocks[0](hidden)
            return self.blocks[3](self.blocks[2](self.blocks[1](first)) + first)

    twins = make(lambda: Net(Smooth() if is_smooth else _Skips()))
    twins.train(shuffled(samples(), 4))
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read > 0
    assert twins.reasons == ""


def test_target_taken_from_the_prefix(make):
    class Noting(Body):
        def forward(self, hidden):
            self.first = self.blocks[0](hidden)
            hidden = self.first
            for block in self.blocks[1:]:
                hidden = block(hidden)
            return hidden

    def loss(model, batch):
        out = model.body(batch)
        return (out - model.body.first.detach()).square().mean() + model.head(out).mean()

    twins = make(lambda: Net(Noting()), loss)
    twins.train(shuffled(samples(), 4))
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read > 0
    assert twins.reasons == ""


def test_hidden_states_returned(make):
    class All(Body):
        def forward(self, hidden):
            states = [hidden]
            for block in self.blocks:
                states.append(block(states[-1]))
            return states

    class Last(Net):
        def forward(self, x):
            states = self.body(x)
            return self.head((states[1] + states[-1]).mean(dim=1))

    twins = make(lambda: Last(All()))
    twins.train(shuffled(samples(), 4))
    assert twins.worst <= CLOSE
    assert twins.cache.counts.rows_read > 0
    assert twins.reasons == ""


def test_batch_norm_and_dropout_above_the_prefix(make):
    class Noisy(Body):
        def __init__(self):
            super().__init__()
            self.blocks[2] = nn.Sequential(Block(), nn.Dropout(0.3), nn.BatchNorm1d(TOKENS))

    twins = make(lambda: Net(Noisy()), audit_every=3)
    twins.train(shuffled(samples(), 5))
    assert twins.worst <= CLOSE
    assert twins.cache.counts.trials > 2
    norms = [model.body.blocks[2][2] for model in (twins.plain, twins.model)]
    for name, buffer in norms[0].named_buffers():
        torch.testing.assert_close(norms[1].get_buffer(name), buffer)


def test_last_batch_of_one_sample_with_a_shared_result(make):
    class Biased(Block):
        def forward(self, pair):
            hidden, bias = pair
            return super().forward(hidden) + bias.mean(), bias + 1

    class Shared(Body):
        def __init__(self):
            super().__init__(Biased)

        def forward(self, hidden):
            pair = hidden, torch.zeros(1, 2, TOKENS, TOKENS)
            for block in self.blocks:
                pair = block(pair)
            return pair[0]

    twins = make(lambda: Net(Shared()))
    twins.train(shuffled(samples(9), 5))
    assert twins.worst <= CLOSE
    assert twins.reasons == ""
    assert twins.cache.counts.rows_read > 0


def test_host_is_not_run_twice_while_others_count_its_calls(make):
    twins = make(audit_every=1)
    for batches in shuffled(samples(), 4):
        for batch in batches:
            begin = twins.cache.begin_step
            twins.cache.begin_step = partial(begin, may_run_twice=False)
            twins.step(batch)
            twins.cache.begin_step = begin
    assert twins.cache.counts.trials == 0
    assert twins.cache.counts.rows_read == 0  # what was never compared is not read
    twins.train(shuffled(samples(), 3))
    assert twins.cache.counts.trials > 0
    assert twins.worst <= CLOSE


def test_audits_go_on(make):
    twins = make(audit_every=2)
    twins.train(shuffled(samples(), 8))
    counts = twins.cache.counts
    assert counts.audits == counts.trials > 5
    assert counts.largest_error <= 1e-6
    assert twins.worst <= CLOSE


def test_counts_of_a_step(make):
    twins = make()
    epochs = shuffled(samples(), 6)
    twins.train(epochs[:5])
    twins.step(epochs[5][0])
    cache = twins.cache
    assert cache.computed_share == 0.0
    assert [len(keys) for keys in cache.step_keys()] == [4]
    assert cache.stored([*cache.step_keys()[0], b"other"]) == list(cache.step_keys()[0])
    assert twins.store.stats.rows == SAMPLES
    twins.step(torch.cat([epochs[5][1], samples(4, seed=8)]))
    assert cache.computed_share == 0.5
    assert twins.store.stats.rows == SAMPLES + 4


def test_order_of_calls_from_a_checkpoint(make):
    first, second = make(), make()
    first.train(shuffled(samples(), 1))
    order = json.loads(json.dumps(first.cache.order_to_list()))
    second.cache.order_from_list(order)
    second.cut(2)
    second.train(shuffled(samples(), 4))
    assert second.worst <= CLOSE
    assert second.cache.counts.rows == 4 * SAMPLES  # from the first step on

"""The small parts of a prefix cache, one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_attnbal.apply.cache._order import CallOrder, find_skippable
from lightning_attnbal.apply.cache._outputs import Leaf, Result
from lightning_attnbal.apply.cache._proof import (
    largest_error,
    outputs_differ,
    random_state,
    set_random_state,
    tolerance,
    unharmed,
)
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._repeats import Repeats
from lightning_attnbal.apply.cache._state import Settings, State
from lightning_attnbal.apply.cache._trace import Reads
from tests.unit.apply.cache.prefixed import Body, Net, samples

NAMES = [f"body.blocks.{i}" for i in range(4)]
UNITS = {name: name for name in [*NAMES, "head"]}


def _skippable(model, cached, units=UNITS, weights=None):
    order = CallOrder(model, units)
    order.start()
    model(samples())
    order.stop()
    weights = dict.fromkeys(units, 10) if weights is None else weights
    return find_skippable(order.visits, units, cached, weights)


def test_host_is_the_deepest_module_around_the_prefix():
    found = _skippable(Net(), NAMES[:2])
    assert (found.host, found.calls, found.pure) == ("body", tuple(NAMES[:2]), frozenset())


def test_host_that_is_all_prefix():
    found = _skippable(Net(), NAMES)
    assert (found.host, found.pure) == ("body", {"body"})


def test_tables_are_always_run():
    found = _skippable(Net(), NAMES[:2], weights=dict.fromkeys([*NAMES[1:], "head"], 10))
    assert found.calls == (NAMES[1],)


def test_nothing_to_skip():
    with pytest.raises(NotCacheableError, match="nothing that costs much"):
        _skippable(Net(), NAMES[1:2])


def test_prefix_ends_where_another_unit_is_called():
    class Mixed(Body):
        def forward(self, hidden):
            first, second, third, fourth = self.blocks
            return fourth(second(third(first(hidden))))

    assert _skippable(Net(Mixed()), NAMES[:2]).calls == (NAMES[0],)


def test_block_called_twice():
    class Twice(Body):
        def forward(self, hidden):
            return super().forward(self.blocks[0](hidden))

    assert _skippable(Net(Twice()), NAMES[:2]).calls == (NAMES[0], *NAMES[:2])


def test_order_within_two_hosts_is_no_prefix_of_either():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Net(), Net()

        def forward(self, x):
            return self.a(x) + self.b(x)

    names = [f"{side}.body.blocks.{i}" for side in "ab" for i in range(4)]
    units = {name: name for name in names}
    found = _skippable(Two(), [*names[:4], names[4]], units)
    assert found.host == ""
    assert found.calls == tuple(names[:5])


@pytest.mark.parametrize(
    ("shape", "count", "is_clear", "axes"),
    [
        ((4, 5, 6), 4, True, {0}),
        ((4, 5, 6), 4, False, {0, None}),
        ((2, 4, 6), 4, True, {1}),
        ((2, 4, 6), 4, False, {1, None}),
        ((4, 4, 6), 4, True, {0, 1}),
        ((5, 6), 4, True, {None}),
        ((1, 2, 5, 5), 1, False, {0, None}),
        ((), 4, True, {None}),
    ],
    ids=str,
)
def test_dimensions_that_may_be_samples(shape, count, is_clear, axes):
    assert Leaf.of(torch.zeros(shape)).axes(count, is_clear=is_clear) == axes


def test_results_are_made_up_from_known_tensors():
    form = Result.of({"hidden": torch.ones(2, 3), "mask": torch.ones(2).bool(), "n": 3})
    form = form.along([0, 0, None])
    made = form.fill(5, {0: torch.zeros(5, 3)})
    assert made["hidden"].shape == (5, 3)
    assert not made["mask"].any()
    assert made["n"] == 3
    assert form.fill(5, {})["hidden"].isnan().all()


def test_results_that_cannot_be_stored():
    with pytest.raises(NotCacheableError, match="returns a object"):
        Result.of([object()])
    with pytest.raises(NotCacheableError, match="not dense"):
        Result.of(torch.eye(2).to_sparse())


def test_errors_of_masks_and_numbers():
    mask = torch.tensor([0.0, float("-inf")])
    assert largest_error(mask, mask.clone()) == 0
    assert largest_error(mask, torch.zeros(2)) == float("inf")
    assert largest_error(torch.ones(2), torch.ones(3)) == float("inf")
    assert outputs_differ([torch.ones(2)], [torch.ones(2), torch.ones(2)], None) == float("inf")


@pytest.mark.parametrize(
    ("encoding", "dtype", "autocast", "expected"),
    [
        ("exact", torch.float32, None, 1e-5),
        ("int8", torch.float32, None, 3e-2),
        ("float16", torch.float32, torch.bfloat16, 3e-2),
        ("exact", torch.float16, None, 5e-3),
        ("exact", torch.int64, None, 1e-5),
    ],
    ids=str,
)
def test_what_counts_as_rounding(encoding, dtype, autocast, expected):
    assert tolerance(encoding, [torch.ones(1, dtype=dtype)], autocast) == expected


def test_random_state_goes_back():
    state = random_state()
    drawn = torch.rand(3)
    assert random_state() != state
    set_random_state(state)
    assert random_state() == state
    assert torch.equal(torch.rand(3), drawn)


def test_unharmed_puts_back_buffers_attributes_and_generators():
    class Changing(nn.BatchNorm1d):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x + torch.rand(1))

    module = Changing(3)
    module.calls = 5
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, random_state()
    with unharmed(module):
        module(torch.randn(4, 3))
    assert module.calls == 5
    assert random_state() == state
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_digest_is_of_content_and_the_same_in_each_run():
    torch.manual_seed(0)
    first = State({"x": nn.Linear(2, 2)})
    torch.manual_seed(0)
    second = State({"x": nn.Linear(2, 2)})
    assert first.digest() == second.digest()
    assert first.digest() != State({"y": nn.Linear(2, 2)}).digest()
    assert first.marks() != second.marks()


def test_settings_leave_out_what_the_forward_changes():
    class Noting(nn.Module):
        task, calls = "a", 0

        def forward(self, x):
            self.calls += 1
            self.last = x
            return x

    module = Noting()
    module.task, module.calls = "a", 0
    settings = Settings({"": module})
    before = settings.now()
    module(torch.ones(1))
    settings.leave_out_changes(before)
    digest = settings.digest()
    module(torch.zeros(1))
    assert settings.digest() == digest
    module.task = "b"
    assert settings.digest() != digest


SOURCE = (0, (0, 0))


@pytest.mark.parametrize(
    ("use", "is_needed"),
    [
        (lambda x: x.detach() + 1, True),
        (lambda x: x.argmax(), True),
        (lambda x: bool((x > 0).any()), True),
        (lambda x: x.sum().item(), True),
        (lambda x: x.detach().numpy().sum(), True),
        (lambda x: x.shape, False),
        (lambda x: [x], False),
    ],
    ids=["detached", "argmax", "comparison", "number", "numpy", "shape", "kept"],
)
def test_whatever_reads_a_result_is_seen(use, is_needed):
    x, reads = torch.ones(3, requires_grad=True), Reads()
    with reads:
        reads.follow({SOURCE: x})
        use(x)
    assert (SOURCE in reads.needed) == is_needed


def test_what_flows_on_within_the_prefix_is_not_needed_until_it_is_read():
    x, table, reads = torch.ones(3), torch.ones(3), Reads()
    reads.is_between = lambda: is_between
    with reads:
        is_between = True
        reads.follow({SOURCE: x})
        y = 2 * x + table
        with reads.paused():
            y.sum()
        assert reads.needed == set()
        is_between = False
        y.sum()
    assert reads.needed == {SOURCE}
    assert [t is table for t in reads.outer.values()] == [True]


def test_number_taken_within_the_prefix_is_needed():
    x, reads = torch.ones(3), Reads()
    reads.is_between = lambda: True
    with reads:
        reads.follow({SOURCE: x})
        x.sum().item()
    assert reads.needed == {SOURCE}


def _epochs(repeats, epochs):
    for calls in epochs:
        repeats.begin_epoch()
        for keys in calls:
            repeats.begin_step()
            repeats.count(keys)


def test_samples_that_come_back_are_no_reason():
    calls, repeats = [[bytes([i])] for i in range(20)], Repeats()
    _epochs(repeats, [calls, calls[::-1], calls])
    assert repeats.num_known == 20


def test_samples_that_never_come_back_are_one_after_a_few_calls():
    repeats = Repeats()
    _epochs(repeats, [[[bytes([i])] for i in range(20)]])
    with pytest.raises(NotCacheableError, match="of 8 samples only 0 had come by"):
        _epochs(repeats, [[[bytes([100 + i])] for i in range(20)]])


def test_keys_of_another_form_are_not_held_against_the_old_ones():
    repeats = Repeats()
    _epochs(repeats, [[[bytes([i])] for i in range(20)]])
    repeats.begin_epoch()
    for i in range(20):
        repeats.begin_step()
        repeats.count([bytes([i, i])], form="untrimmed")
    repeats.begin_epoch()
    assert repeats.expected == 1.0


def test_steps_without_a_cache_lower_what_is_expected():
    repeats = Repeats()
    repeats.begin_epoch()
    for i in range(20):
        repeats.begin_step()
        if i % 4 == 0:
            repeats.count([bytes([i])])
    repeats.begin_epoch()
    assert repeats.expected == 0.25

from collections import Counter
from itertools import chain, islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

from lightning_attnbal.multitask import TaskLoader, interleave


class Numbers(IterableDataset):
    def __init__(self, num):
        self.num = num

    def __len__(self):
        return self.num

    def __iter__(self):
        return iter(range(self.num))


SIZES = {"big": 14, "mid": 6, "small": 3}


def loaders(sizes=SIZES, batch_size=1, shuffle=True):
    return {
        task: DataLoader(range(size), batch_size, shuffle=shuffle) for task, size in sizes.items()
    }


def rows(steps):
    """Each step as {task: indices}."""
    return [{task: batch.tolist() for task, batch in step.items()} for step in steps]


def tasks(steps):
    return [task for step in steps for task in step]


def fractions(num):
    return st.lists(st.floats(0, 1), min_size=num, max_size=num).filter(any)


@given(st.lists(fractions(3), min_size=2, max_size=4), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_every_epoch_serves_its_plan_evenly(plans, num_batches):
    loader = TaskLoader(loaders(), num_batches=num_batches)
    for plan in plans:
        shares = dict(zip(SIZES, plan, strict=True))
        loader.set_shares(shares)
        served = tasks(loader)
        assert len(served) == len(loader) == num_batches
        assert Counter(served) == Counter({t: n for t, n in loader.planned.items() if n})
        assert loader.served == loader.planned
        assert tuple(served) == interleave(loader.planned)
        total = sum(plan)
        assert all(
            abs(loader.served[t] - num_batches * s / total) < 1 + 1e-9 for t, s in shares.items()
        )


def test_without_shares_an_epoch_is_one_pass_over_all():
    loader = TaskLoader(loaders(batch_size=2))
    assert loader.lengths == loader.planned == {"big": 7, "mid": 3, "small": 2}
    seen = {task: [] for task in SIZES}
    for step in loader:
        for task, batch in step.items():
            seen[task] += batch.tolist()
    assert {task: sorted(found) for task, found in seen.items()} == {
        task: list(range(size)) for task, size in SIZES.items()
    }


def test_all_tasks_in_each_step_for_the_longest():
    loader = TaskLoader(loaders(), mode="all")
    steps = rows(loader)
    assert len(steps) == len(loader) == 14
    assert loader.order == (("big", "mid", "small"),) * 14
    small = [step["small"][0] for step in steps]
    assert [sorted(small[i : i + 3]) for i in (0, 3, 6, 9)] == [[0, 1, 2]] * 4
    assert len({tuple(small[i : i + 3]) for i in (0, 3, 6, 9)}) > 1  # shuffled anew
    assert sorted(step["big"][0] for step in steps) == list(range(14))


def test_large_task_goes_on_where_it_stopped():
    loader = TaskLoader(loaders(), shares={"big": 7, "mid": 1, "small": 2}, num_batches=10)
    seen = [batch for _ in range(2) for step in rows(loader) for batch in step.get("big", [])]
    assert sorted(seen) == list(range(14))


def test_shares_take_effect_with_the_next_epoch():
    loader = TaskLoader(loaders(), num_batches=6)
    epoch = iter(loader)
    loader.set_shares({"big": 1, "mid": 1, "small": 0})  # `iter` has not begun the epoch
    assert list(next(epoch)) == ["big"]
    loader.set_shares({"big": 0, "mid": 0, "small": 5})
    assert loader.planned == {"big": 3, "mid": 3, "small": 0}
    assert tasks(epoch) == ["mid", "big", "mid", "big", "mid"]
    assert loader.served == {"big": 3, "mid": 3, "small": 0}
    assert tasks(loader) == ["small"] * 6


def test_starting_an_epoch_gives_up_the_last():
    loader = TaskLoader(loaders(shuffle=False), shares={"big": 1, "mid": 0, "small": 0})
    assert rows(islice(loader, 2)) == [{"big": [0]}, {"big": [1]}]
    assert loader.served == {"big": 2, "mid": 0, "small": 0}
    assert rows(islice(loader, 2)) == [{"big": [2]}, {"big": [3]}]


@pytest.mark.parametrize("mode", ["one", "all"])
def test_state_continues_with_the_next_step(mode, tmp_path):
    def make(seed=5):
        return TaskLoader(loaders(), mode=mode, num_batches=9, seed=seed)

    def run(loader, num):
        """Three epochs, from wherever the loader stands."""
        steps = list(islice(chain.from_iterable(loader for _ in range(3)), num))
        return rows(steps)

    expected = run(make(), 27)
    for position in range(19):
        loader = make()
        run(loader, position)
        torch.save(loader.state_dict(), tmp_path / "state.pt")
        again = make(seed=1)
        again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert again.served == loader.served
        assert run(again, 27 - position)[:9] == expected[position : position + 9]


def test_state_keeps_the_plan_of_its_epoch_and_the_shares_of_the_next():
    loader = TaskLoader(loaders(), shares={"big": 1, "mid": 0, "small": 0}, num_batches=4)
    epoch = iter(loader)
    next(epoch)
    loader.set_shares({"big": 0, "mid": 1, "small": 0})
    again = TaskLoader(loaders(), num_batches=4)
    again.load_state_dict(loader.state_dict())
    assert (tasks(again), tasks(again)) == (["big"] * 3, ["mid"] * 4)


def test_loaded_epoch_can_be_given_up():
    loader = TaskLoader(loaders(), num_batches=4)
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())
    loader.end_epoch()
    assert len(list(loader)) == 4


def test_epoch_of_another_length_continues_only_from_its_end():
    short, long = (TaskLoader(loaders(), num_batches=n) for n in (4, 6))
    list(short)
    long.load_state_dict(short.state_dict())
    assert len(list(long)) == 6
    next(iter(short))
    with pytest.raises(ValueError, match="within an epoch of 6 batches, but got one of 4: resume"):
        long.load_state_dict(short.state_dict())


def test_ranks_serve_the_same_tasks_and_other_rows():
    sizes = {"big": 12, "small": 4}
    ranks = [TaskLoader(loaders(sizes, 2), rank=rank, world_size=2) for rank in range(2)]
    assert ranks[0].lengths == {"big": 3, "small": 1}
    served = [rows(loader) for loader in ranks]
    assert tasks(served[0]) == tasks(served[1])
    for task, size in sizes.items():
        seen = [step[task] for step in chain(*served) if task in step]
        assert sorted(chain(*seen)) == list(range(size))


def test_close_keeps_the_place():
    loader = TaskLoader({"a": DataLoader(range(3), num_workers=1)})
    epoch = iter(loader)
    first = next(epoch)
    loader.close()
    assert rows([first, *epoch]) == [{"a": [0]}, {"a": [1]}, {"a": [2]}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loaders": {}}, "Expected `loaders` to have a loader for each task, but got none"),
        ({"loaders": {"a": DataLoader([])}}, r"loader of task 'a' to have a length in \[1, inf\)"),
        (
            {"shares": {"big": 1, "mid": 1}},
            r"`shares` to have the tasks .* \['small'\] are missing",
        ),
        ({"shares": dict.fromkeys([*SIZES, "x"], 1)}, r"\[\] are missing and \['x'\] are unknown"),
        ({"shares": {**SIZES, "mid": -1}}, r"Expected `shares\['mid'\]` to be in \[0, inf\)"),
        ({"shares": dict.fromkeys(SIZES, 0)}, r"`shares` to have a sum in \(0, inf\)"),
        ({"shares": SIZES, "mode": "all"}, "Expected `shares` to be None in mode 'all'"),
        ({"mode": "some"}, "Expected `mode` to be one of 'one', 'ranks', 'all', 'common'"),
        ({"num_batches": 0}, r"Expected `num_batches` to be in \[1, inf\), but got 0"),
        ({"rank": 1}, r"Expected `rank` to be in \[0, 0\], but got 1"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        TaskLoader(**{"loaders": loaders(), **given})


@pytest.mark.parametrize(
    ("sizes", "mode", "message"),
    [
        ({"big": 2}, "one", r"`state` to have the tasks \['big'\], but \[\] are missing .*'small'"),
        ({**SIZES, "new": 1}, "one", r"\['new'\] are missing and \[\] are unknown"),
        (SIZES, "all", "Expected `mode` to be one of 'all', but got 'one'"),
    ],
    ids=["disappeared", "appeared", "mode"],
)
def test_refuses_a_state_of(sizes, mode, message):
    state = TaskLoader(loaders()).state_dict()
    with pytest.raises(ValueError, match=message):
        TaskLoader(loaders(sizes), mode=mode).load_state_dict(state)


def test_ranks_serve_the_shares_together_and_every_row_once():
    every = [
        TaskLoader(
            loaders({"big": 12, "small": 6}), mode="ranks", num_batches=9, rank=r, world_size=2
        )
        for r in range(2)
    ]
    pairs = list(zip(*map(rows, every), strict=True))
    assert every[0].planned == every[0].served == {"big": 12, "small": 6}
    assert every[0].order == every[1].order
    assert every[0].order == tuple(tuple(task for step in pair for task in step) for pair in pairs)
    for task, size in {"big": 12, "small": 6}.items():
        seen = [row for pair in pairs for step in pair for row in step.get(task, [])]
        assert sorted(seen) == list(range(size))


def test_a_turn_is_known_before_and_after():
    loader = TaskLoader(loaders(), shares={"big": 1, "mid": 1, "small": 0}, num_batches=3)
    assert (loader.turn, loader.coming(2)) == ((), ("big", "mid"))
    first, *_ = loader
    assert list(first) == ["big"]
    assert (loader.turn, loader.coming()) == (("big",), ())


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_common_samples_continue_mid_epoch(workers):
    def common():
        data = {task: [10 * k + i for k in range(9)] for i, task in enumerate(("a", "b"))}
        parts = {t: DataLoader(d, 2, shuffle=True, num_workers=workers) for t, d in data.items()}
        return TaskLoader(parts, mode="common", seed=3)

    whole = common()
    steps = rows(whole) + rows(whole)
    assert all([x + 1 for x in step["a"]] == step["b"] for step in steps)
    assert sorted(chain.from_iterable(s["a"] for s in steps[:5])) == list(range(0, 90, 10))
    assert steps[:5] != steps[5:]
    part = common()
    begun = rows(islice(part, 2))
    resumed = common()
    resumed.load_state_dict(part.state_dict())
    assert begun + rows(resumed) + rows(resumed) == steps


@pytest.mark.parametrize(
    "parts",
    [
        {"a": DataLoader(range(4), 2), "b": DataLoader(range(5), 2)},
        {"a": DataLoader(range(4), None), "b": DataLoader(range(4), 2)},
        {"a": DataLoader(Numbers(4), 2), "b": DataLoader(range(4), 2)},
    ],
    ids=["sizes", "no batches", "iterable"],
)
def test_common_samples_are_refused_where_there_are_none(parts):
    with pytest.raises(ValueError, match="data sets of one size"):
        TaskLoader(parts, mode="common")


def test_first_epoch_looks_at_every_task_soon():
    sizes = {"big": 60, "rare": 1, "few": 2}
    plain = TaskLoader(loaders(sizes), num_batches=20)
    early = TaskLoader(loaders(sizes), num_batches=20, first_within=2)
    assert plain.planned == {"big": 19, "rare": 0, "few": 1}
    assert early.planned == {"big": 18, "rare": 1, "few": 1}
    steps = iter(early)
    first = tasks(islice(steps, 6))
    assert set(first) == set(sizes)
    resumed = TaskLoader(loaders(sizes), num_batches=20, first_within=2)
    resumed.load_state_dict(early.state_dict())
    assert rows(steps) == rows(resumed)
    assert early.planned == resumed.planned == {"big": 18, "rare": 1, "few": 1}
    assert tasks(early) == tasks(resumed) == tasks(plain)


def test_a_task_without_a_share_is_not_looked_at():
    shares = {"big": 1, "mid": 0, "small": 1}
    loader = TaskLoader(loaders(), shares=shares, num_batches=9, first_within=1)
    assert set(tasks(loader)) == {"big", "small"}


def test_too_short_an_epoch_is_served_as_it_is():
    loader = TaskLoader(loaders({"a": 9, "b": 1, "c": 1}), num_batches=2, first_within=1)
    assert loader.planned == {"a": 2, "b": 0, "c": 0}

"""A store behaves like a dict, whatever is done to it."""

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attnbal.apply.cache._store import ActivationStore
from tests.unit.apply.cache.stored import fetch

LIMITS = [
    {"ram": 2**20},
    {"ram": 0, "disk": 2**20},
    {"ram": 3000, "disk": 4000},
    {"ram": 4000, "disk": 0},
]
DTYPES = [torch.float32, torch.bool, torch.float64]
KEYS = st.binary(max_size=3)
SPACES = st.sampled_from(["a", "b", ""])
STEPS = st.one_of(
    st.tuples(st.just("put"), SPACES, st.lists(st.tuples(KEYS, st.integers(0, 40)), max_size=6)),
    st.tuples(st.just("read"), SPACES, st.lists(KEYS, max_size=6)),
    st.tuples(st.just("prefetch"), SPACES, st.lists(KEYS, max_size=6)),
    st.tuples(st.just("prefer"), SPACES, st.none()),
    st.tuples(st.just("drop"), SPACES, st.none()),
    st.tuples(st.just("refresh"), SPACES, st.none()),
)


def row(length):
    values = torch.randn(length, 3)
    return [values, values[:, 0] > 0, values.sum().double()]


def check_put(space, model, pairs):
    """Every row that was stored is there, and no other; known ones did not change."""
    keys, values = [k for k, _ in pairs], [row(length) for _, length in pairs]
    before = set(keys) - {keys[i] for i in space.missing(keys)}
    stored = space.put(keys, values)
    absent = {keys[i] for i in space.missing(keys)}
    assert before.isdisjoint(absent)
    new = set(keys) - absent - before
    assert stored == len(new)
    for name, value in reversed(list(zip(keys, values, strict=True))):
        if name in new:
            model[name] = value  # a key put twice keeps its first row that had room


def check_read(space, model, keys):
    for name in keys:
        kept = fetch(space, name, DTYPES)
        assert (kept is None) == bool(space.missing([name]))
        if kept is not None:
            assert all(map(torch.equal, kept, model[name]))


def act(store, models, step):
    action, name, what = step
    space = store.space(name)
    if action == "put":
        check_put(space, models.setdefault(name, {}), what)
    elif action == "read":
        check_read(space, models.setdefault(name, {}), what)
    elif action == "prefetch":
        space.prefetch(what)
    elif action == "prefer":
        store.prefer([name])
    elif action == "drop":
        store.drop(name)
        assert len(space) == 0
    else:
        space.refresh()


@settings(max_examples=60, deadline=None)
@given(limits=st.sampled_from(LIMITS), keep=st.booleans(), steps=st.lists(STEPS, max_size=25))
def test_a_store_behaves_like_a_dict(limits, keep, steps):
    with tempfile.TemporaryDirectory() as folder:
        models: dict[str, dict] = {}
        with ActivationStore(**limits, folder=Path(folder), keep=keep) as store:
            for step in steps:
                act(store, models, step)
                stats = store.stats
                assert stats.rows == sum(len(store.space(name)) for name in ("a", "b", ""))
                assert stats.disk_bytes <= limits.get("disk", 0)
                assert stats.ram_bytes <= limits["ram"] or not limits["ram"]
                assert stats.problems == ()
            sizes = {name: len(store.space(name)) for name in ("a", "b", "")}
        if not keep or not limits.get("disk"):
            assert list(Path(folder).iterdir()) == []
        elif limits["disk"] == 2**20:
            with ActivationStore(ram=0, folder=Path(folder)) as again:
                for name, size in sizes.items():
                    assert len(again.space(name)) == size
                    check_read(again.space(name), models.get(name, {}), models.get(name, {}))

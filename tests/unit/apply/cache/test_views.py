"""A fixed number of augmented versions."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_attnbal.apply.cache._proof import random_state
from lightning_attnbal.apply.cache._views import FixedViews
from tests.unit.apply.cache.prefixed import TOKENS, WIDTH, Twins

SOURCES = {
    "python": lambda: random.random(),
    "numpy": lambda: float(np.random.rand()),
    "torch": lambda: float(torch.rand(())),
}


class Noisy(Dataset):
    def __init__(self, source="torch", fails=False):
        self.source, self.fails = source, fails

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if self.fails:
            msg = "broken file"
            raise OSError(msg)
        return index + SOURCES[self.source]()


@pytest.mark.parametrize("source", SOURCES)
def test_so_many_versions_and_no_more(source):
    views = FixedViews(Noisy(source), num_views=3)
    found = {views[4] for _ in range(60)}
    assert found == {views.view(4, v) for v in range(3)}
    assert len(found) == 3


def test_versions_differ_by_sample_view_and_seed():
    first, second = FixedViews(Noisy(), 4), FixedViews(Noisy(), 4, seed=1)
    found = {
        round(v.view(i, k) - i, 9) for v in (first, second) for i in range(10) for k in range(4)
    }
    assert len(found) == 80


def test_random_state_is_left_alone():
    views, state = FixedViews(Noisy(), 2), random_state()
    views.view(0, 1)
    assert random_state() == state
    with pytest.raises(OSError, match="broken file"):
        FixedViews(Noisy(fails=True), 2).view(0, 0)
    assert random_state() == state


def test_view_is_drawn_from_pytorchs_generator():
    views = FixedViews(Noisy(), 100)
    torch.manual_seed(3)
    first = [views[i] for i in range(10)]
    second = [views[i] for i in range(10)]
    torch.manual_seed(3)
    assert [views[i] for i in range(10)] == first
    assert first != second


def test_negative_index_and_numpy_index_are_the_same_sample():
    views = FixedViews(Noisy(), 1)
    assert views[-1] - (-1) == pytest.approx(views[9] - 9)
    assert views[np.int64(3)] == views[3]


def test_copies_give_the_same_versions():
    views = FixedViews(Noisy(), 2, seed=5)
    assert pickle.loads(pickle.dumps(views)).view(3, 1) == views.view(3, 1)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_draw_other_views_in_each_epoch():
    views = FixedViews(Noisy(), 50)
    loader = DataLoader(views, 5, num_workers=2)
    torch.manual_seed(0)
    epochs = [torch.cat(list(loader)).tolist() for _ in range(2)]
    assert epochs[0] != epochs[1]
    for i in range(10):
        known = [pytest.approx(views.view(i, v)) for v in range(50)]
        assert all(any(epoch[i] == x for x in known) for epoch in epochs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_views": 0}, ValueError, r"`num_views` to be in \[1, inf\), but got 0"),
        ({"num_views": 1.5}, TypeError, "`num_views` to be an integer"),
        ({"num_views": 2, "seed": -1}, ValueError, "`seed` to be in"),
    ],
)
def test_bad_numbers(options, error, message):
    with pytest.raises(error, match=message):
        FixedViews(Noisy(), **options)


def test_what_cannot_be_indexed():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(TypeError, match=r"Expected `dataset` to be map-style .* but got Stream"):
        FixedViews(Stream(), 2)


def test_unknown_view():
    with pytest.raises(ValueError, match=r"`view` to be in \[0, 1\], but got 2"):
        FixedViews(Noisy(), 2).view(0, 2)


class _Augmented(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.full((TOKENS, WIDTH), float(index)) / 12 + torch.randn(TOKENS, WIDTH)


def test_augmented_samples_are_read():
    torch.manual_seed(0)
    views, twins = FixedViews(_Augmented(), 2), Twins()
    for _ in range(8):
        twins.epoch(list(DataLoader(views, 2, shuffle=True)))
    assert twins.reasons == ""
    assert twins.store.stats.rows == 24
    assert twins.cache.counts.hit_rate > 0.5
    assert twins.worst <= 1e-6
    twins.close()

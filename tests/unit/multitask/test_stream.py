import random
from itertools import chain, islice

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from lightning_attnbal.multitask import TaskStream


class Rows(Dataset):
    """Gives its indices back, and notes which were asked for."""

    def __init__(self, num):
        self.num, self.read = num, []

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        self.read.append(index)
        return index


class Worker(Rows):
    """Gives which worker reads, and its seed."""

    def __getitem__(self, index):
        info = get_worker_info()
        return info.id, info.seed


class Lines(IterableDataset):
    """Rows without indices, in another order each epoch."""

    def __init__(self, num):
        self.num, self.epoch = num, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.num

    def __iter__(self):
        return iter(np.random.default_rng(self.epoch).permutation(self.num).tolist())


class Endless(IterableDataset):
    """Has no length."""

    def __iter__(self):
        return iter(int, 1)


class Buckets:
    """A batch sampler that draws from Python's and NumPy's global generators."""

    def __init__(self, num):
        self.num = num

    def __len__(self):
        return self.num

    def __iter__(self):
        rows = np.random.permutation(2 * self.num).tolist()
        batches = [rows[2 * i : 2 * i + 2] for i in range(self.num)]
        random.shuffle(batches)
        return iter(batches)


class OwnIteration(DataLoader):
    def __iter__(self):
        return super().__iter__()


LOADERS = {
    "shuffle": lambda: DataLoader(Rows(7), 2, shuffle=True),
    "generator": lambda: DataLoader(Rows(7), 2, shuffle=True, generator=torch.Generator()),
    "sequential": lambda: DataLoader(Rows(7), 2, drop_last=True),
    "weighted": lambda: DataLoader(Rows(7), 2, sampler=WeightedRandomSampler([1.0] * 7, 7)),
    "batch-sampler": lambda: DataLoader(Rows(8), batch_sampler=Buckets(4)),
    "no-batches": lambda: DataLoader(Rows(4), batch_size=None, shuffle=True),
    "workers": lambda: DataLoader(Rows(7), 2, shuffle=True, num_workers=1, persistent_workers=True),
    "iterable": lambda: DataLoader(Lines(7), 2),
}


def take(stream, num):
    return [torch.as_tensor(batch).tolist() for batch in islice(stream, num)]


@pytest.fixture(params=LOADERS)
def make_loader(request):
    return LOADERS[request.param]


def test_state_continues_with_the_next_batch(make_loader):
    whole = TaskStream("a", make_loader(), seed=3)
    expected = take(whole, 3 * whole.length)
    for position in range(0, 2 * whole.length + 1, 1 if not make_loader().num_workers else 3):
        first = TaskStream("a", make_loader(), seed=3)
        take(first, position)
        again = TaskStream("a", make_loader(), seed=4)
        again.load_state_dict(first.state_dict(), seed=3)
        assert take(again, whole.length) == expected[position : position + whole.length]


def test_user_sees_no_trace(make_loader):
    loader = make_loader()
    generators = [torch.default_generator, *filter(None, [loader.generator])]
    before = [g.get_state() for g in generators]
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()
    stream = TaskStream("a", loader)
    take(stream, 2 * stream.length)
    assert all(torch.equal(g.get_state(), s) for g, s in zip(generators, before, strict=True))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == (python, numpy)


def test_each_pass_has_every_row_once_in_an_order_of_its_own():
    stream = TaskStream("a", DataLoader(Rows(20), 3, shuffle=True))
    passes = [list(chain(*take(stream, stream.length))) for _ in range(4)]
    assert [sorted(rows) for rows in passes] == [list(range(20))] * 4
    assert len(set(map(tuple, passes))) == 4


@pytest.mark.parametrize("other", [("b", 0), ("a", 1)], ids=["task", "seed"])
def test_order_depends_on(other):
    orders = [
        take(TaskStream(task, DataLoader(Rows(20), 20, shuffle=True), seed=seed), 1)
        for task, seed in (("a", 0), ("a", 0), other)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_skipped_batches_are_not_read():
    rows = Rows(8)
    stream = TaskStream("a", DataLoader(rows, 2))
    stream.load_state_dict({"cycle": 0, "position": 3})
    assert take(stream, 2) == [[6, 7], [0, 1]]
    assert rows.read == [6, 7, 0, 1]


def test_close_keeps_the_place():
    stream = TaskStream("a", DataLoader(Rows(6), 2, num_workers=1, persistent_workers=True))
    assert take(stream, 2) == [[0, 1], [2, 3]]
    stream.close()
    assert take(stream, 2) == [[4, 5], [0, 1]]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
def test_workers_and_collation_are_the_users_and_seeds_repeat():
    def collate(rows):
        return [rows[0]]

    def seen(rank):
        loader = DataLoader(Worker(4), 1, num_workers=2, collate_fn=collate)
        stream = TaskStream("a", loader, rank=rank, world_size=2)
        return [pair for batch in islice(stream, 4) for pair in batch]

    first, again, other = seen(0), seen(0), seen(1)
    assert [worker for worker, _ in first] == [0, 1, 0, 1]  # two passes of two batches
    assert first == again
    assert not {seed for _, seed in first} & {seed for _, seed in other}
    assert first[0] != first[2]


@pytest.mark.parametrize("num", [8, 9, 1], ids=["divides", "remainder", "fewer-than-ranks"])
def test_ranks_share_a_pass(num):
    streams = [
        TaskStream("a", DataLoader(Rows(num), 1, shuffle=True), rank=rank, world_size=2)
        for rank in range(2)
    ]
    served = [list(chain(*take(stream, stream.length))) for stream in streams]
    assert [len(rows) for rows in served] == [-(-num // 2)] * 2
    assert set(chain(*served)) == set(range(num))
    assert len(set(served[0]) & set(served[1])) == num % 2  # the repeated one


def test_ranks_share_what_is_left_after_their_number_changed():
    def stream(rank, world_size):
        return TaskStream("a", DataLoader(Rows(12), 1), rank=rank, world_size=world_size)

    two = stream(0, 2)
    take(two, 2)
    rest = []
    for rank in range(4):
        four = stream(rank, 4)
        four.load_state_dict(two.state_dict())
        rest += chain(*take(four, 2))
    assert sorted(rest) == [4, 5, 6, 7, 8, 9, 10, 11]


def test_distributed_sampler_is_not_divided_again_and_shuffles_anew():
    rows = Rows(6)
    streams = []
    for rank in range(2):
        sampler = DistributedSampler(rows, num_replicas=2, rank=rank)
        loader = DataLoader(rows, batch_sampler=BatchSampler(sampler, 1, drop_last=False))
        streams.append(TaskStream("a", loader, rank=rank, world_size=2))
    passes = [[list(chain(*take(s, s.length))) for s in streams] for _ in range(2)]
    assert [sorted(chain(*ranks)) for ranks in passes] == [list(range(6))] * 2
    assert passes[0] != passes[1]


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        ([1, 2], TypeError, "loader of task 'a' to be a torch `DataLoader` .* got list"),
        (OwnIteration(Rows(2)), TypeError, "without an `__iter__` of its own, but got OwnIter"),
        (DataLoader(Rows(1), 2, drop_last=True), ValueError, "task 'a' to have a length in"),
        (DataLoader(Endless()), TypeError, "its data set has none: give Endless a `__len__`"),
    ],
    ids=["list", "own-iter", "empty", "no-length"],
)
def test_refuses(loader, error, message):
    with pytest.raises(error, match=message):
        TaskStream("a", loader)


def test_refuses_a_rank_outside_the_world():
    with pytest.raises(ValueError, match=r"Expected `rank` to be in \[0, 1\], but got 2"):
        TaskStream("a", DataLoader(Rows(2)), rank=2, world_size=2)


def test_refuses_a_pass_without_batches():
    lines = Lines(2)
    stream = TaskStream("a", DataLoader(lines, 2))
    lines.num = 0
    with pytest.raises(ValueError, match="loader of task 'a' to give batches, but got none"):
        next(stream)

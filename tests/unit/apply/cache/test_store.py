"""Rows come back as they were stored."""

import threading

import pytest
import torch

from lightning_attnbal.apply.cache._store import ActivationStore
from lightning_attnbal.core import Dimension, Quantity
from tests.unit.apply.cache.stored import fetch, found, key, rows

PLACES = {"ram": {"ram": "4MiB"}, "disk": {"ram": 0, "disk": "4MiB"}}


@pytest.fixture(params=PLACES.values(), ids=PLACES)
def place(request):
    return request.param


def test_rows_may_mix_dtypes_and_shapes_and_be_empty(place):
    def row(length):
        floats = torch.randn(length, 3)
        return [floats, torch.arange(length), floats > 0, torch.tensor(1.5).double(), floats[:0]]

    keys, given = [key(i) for i in range(4)], [row(length) for length in (0, 1, 5, 2)]
    with ActivationStore(**place) as store:
        space = store.space("cut")
        assert space.put(keys, given) == 4
        assert found(space, keys, given) == 4
        assert space.shapes(key(2)) == ((5, 3), (5,), (5, 3), (), (0, 3))


def test_a_row_may_have_no_tensor(place):
    with ActivationStore(**place) as store:
        space = store.space("cut")
        assert space.put([key(1)], [[]]) == 1
        assert space.read([key(1)], [[]]) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_rows_are_read_into_slices_of_a_batch(dtype, place):
    lengths = (3, 1, 4)
    given = [torch.randn(length, 5) for length in lengths]
    with ActivationStore(**place) as store:
        space = store.space("cut")
        space.put([key(i) for i in range(3)], [[row] for row in given])
        batch = torch.zeros(5, 3, 4, dtype=dtype).permute(1, 2, 0)  # nothing is contiguous
        out = [[batch[i, : lengths[i]]] for i in range(3)]
        assert space.read([key(i) for i in range(3)], out) == []
        expected = torch.nn.utils.rnn.pad_sequence(given, batch_first=True).to(dtype)
        assert torch.equal(batch, expected)


def test_rows_are_copies_of_what_was_given_whatever_its_strides(place):
    given = torch.randn(5, 4, requires_grad=True)
    transposed = given.t()
    with ActivationStore(**place) as store:
        space = store.space("cut")
        space.put([key(1)], [[transposed]])
        expected = transposed.detach().clone()
        with torch.no_grad():
            given.zero_()
        assert torch.equal(fetch(space, key(1), [torch.float32])[0], expected)


def test_rows_stored_during_inference_do_not_hinder_training(place):
    with ActivationStore(**place) as store:
        space = store.space("cut")
        with torch.inference_mode():
            space.put([key(1)], [[torch.ones(3)]])
        space.put([key(2)], [[torch.full((3,), 2.0)]])
        out = torch.zeros(2, 3)
        assert space.read([key(1), key(2)], [[row] for row in out]) == []
        weight = torch.ones(3, requires_grad=True)
        (out * weight).sum().backward()
        assert weight.grad.tolist() == [3, 3, 3]


def test_a_key_is_stored_once(place):
    keys = [key(1), key(2), key(1)]
    with ActivationStore(**place) as store:
        space = store.space("cut")
        assert space.put(keys, [[torch.ones(2)], [torch.zeros(2)], [torch.zeros(2)]]) == 2
        assert space.put(keys[:1], [[torch.zeros(2)]]) == 0
        assert len(space) == store.stats.rows == 2
        out = torch.full((3, 2), 5.0)
        assert space.read(keys, [[row] for row in out]) == []
        assert out.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_what_is_not_stored_is_missing_and_not_delivered(place):
    with ActivationStore(**place) as store:
        space = store.space("cut")
        space.put([key(1)], [[torch.ones(2)]])
        assert space.missing([key(0), key(1), key(2)]) == [0, 2]
        out = torch.zeros(3, 2)
        assert space.read([key(0), key(1), key(2)], [[row] for row in out]) == [0, 2]
        assert out.tolist() == [[0, 0], [1, 1], [0, 0]]
        with pytest.raises(KeyError, match="Expected `key` to be stored in space 'cut'"):
            space.shapes(key(0))


def test_spaces_are_apart_and_opened_once(place):
    with ActivationStore(**place) as store:
        space, other = store.space("../cut"), store.space("cut/" + "x" * 300)
        space.put([key(1)], [[torch.ones(2)]])
        other.put([key(1)], [[torch.zeros(3, dtype=torch.int64)]])
        assert store.space("../cut") is space
        assert space.name == "../cut"
        assert fetch(space, key(1), [torch.float32])[0].tolist() == [1, 1]
        assert fetch(other, key(1), [torch.int64])[0].tolist() == [0, 0, 0]


def test_figures(place):
    keys, given = rows(10, 8, 8)
    with ActivationStore(**place) as store:
        space = store.space("cut")
        space.put(keys, given)
        found(space, keys[:5], given[:5])
        stats = store.stats
        assert (stats.rows, stats.rows_refused, stats.error, stats.problems) == (10, 0, 0, ())
        assert (stats.bytes_written, stats.bytes_read) == (10 * 256, 5 * 256)
        assert stats.seconds_written > 0 < stats.seconds_read
        assert stats.disk_bytes == (0 if place["ram"] else 10 * 256)
        assert 0 < stats.ram_bytes - (10 * 256 - stats.disk_bytes) < 10 * 256 + 4096  # the index


def test_threads_may_write_and_read_at_once(place):
    keys, given = rows(200, 16)
    lost = []

    def work(space, start):
        for i in range(start, 200, 2):
            space.put([keys[i]], [given[i]])
            space.prefetch(keys[: i + 1])
            if found(space, [keys[i]], [given[i]]) != 1:
                lost.append(i)

    with ActivationStore(**place) as store:
        space = store.space("cut")
        threads = [threading.Thread(target=work, args=(space, start)) for start in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert lost == []
        assert found(space, keys, given) == 200


def test_nothing_is_found_or_stored_after_close(place):
    store = ActivationStore(**place)
    space = store.space("cut")
    space.put([key(1)], [[torch.ones(2)]])
    store.close()
    store.close()
    assert space.missing([key(1)]) == [0]
    assert space.put([key(1)], [[torch.ones(2)]]) == 0
    space.prefetch([key(1)])
    space.refresh()
    stats = store.stats
    assert (stats.rows, stats.ram_bytes, stats.disk_bytes, stats.rows_refused) == (0, 0, 0, 0)
    assert store.space("other").put([key(1)], [[torch.ones(2)]]) == 0


REFUSED = {
    "fewer rows": ([key(1), key(2)], [[torch.ones(2)]], ValueError, r"one row per key \(2\)"),
    "key is text": (["a"], [[torch.ones(2)]], TypeError, "Expected `keys` to be bytes"),
    "other dtype": ([key(1)], [[torch.ones(2).int()]], ValueError, "Expected rows of dtypes"),
    "more tensors": ([key(1)], [[torch.ones(2)] * 2], ValueError, "Expected rows of dtypes"),
    "sparse": ([key(1)], [[torch.ones(2).to_sparse()]], TypeError, "Expected dense tensors"),
}


@pytest.mark.parametrize(("keys", "given", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_refuses_to_put(keys, given, error, says):
    with ActivationStore(ram="1MiB") as store:
        space = store.space("cut")
        space.put([key(0)], [[torch.ones(2)]])
        with pytest.raises(error, match=says):
            space.put(keys, given)
        assert len(space) == 1


UNFIT = {
    "broadcast": ([torch.zeros(4, 2)], "of shape"),
    "integers": ([torch.zeros(2).int()], "of torch.float32"),
    "two tensors": ([torch.zeros(2)] * 2, "Expected 1 tensors per row"),
}


@pytest.mark.parametrize(("out", "says"), UNFIT.values(), ids=UNFIT)
def test_refuses_to_read_into_what_does_not_fit(out, says):
    with ActivationStore(ram="1MiB") as store:
        space = store.space("cut")
        space.put([key(0)], [[torch.ones(2)]])
        with pytest.raises(ValueError, match=says):
            space.read([key(0)], [out])
        with pytest.raises(ValueError, match="one row per key"):
            space.read([key(0)], [])


WRONG = {
    "fraction": ({"ram": "40%"}, ValueError, "Expected `ram` to be in bytes"),
    "negative": ({"disk": -1}, ValueError, r"Expected `disk` to be in \[0, inf"),
    "float": ({"ram": 1.5}, TypeError, "Expected `ram` to be an integer"),
    "dtype": ({"dtype": "float8"}, ValueError, "Expected `dtype` to be one of 'exact'"),
    "keep": ({"keep": True}, ValueError, "Expected `folder` to be given"),
}


@pytest.mark.parametrize(("options", "error", "says"), WRONG.values(), ids=WRONG)
def test_refuses_arguments(options, error, says):
    with pytest.raises(error, match=says):
        ActivationStore(**options)


def test_refuses_names():
    with ActivationStore(ram=0) as store:
        with pytest.raises(TypeError, match="Expected `name` to be text"):
            store.space(b"cut")
        with pytest.raises(TypeError, match="Expected `names` to be several names"):
            store.prefer("cut")


@pytest.mark.parametrize(
    "ram", ["2MiB", 2**21, Quantity(2**21, Dimension.BYTE)], ids=["text", "number", "quantity"]
)
def test_capacity_is_what_was_asked_for(ram, tmp_path):
    assert ActivationStore(ram=ram).capacity == 2**21
    with ActivationStore(ram=ram, disk="1MiB", folder=tmp_path) as store:
        assert store.capacity == 2**21 * 7 // 8 + 2**20


def test_takes_a_part_of_the_free_memory_unless_told(monkeypatch):
    alone = ActivationStore().capacity
    assert 2**20 < alone < 2**44
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert ActivationStore().capacity < alone / 4

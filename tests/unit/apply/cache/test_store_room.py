"""What is held where, and who leaves when there is no room."""

import mmap
import subprocess
import sys
import tracemalloc

import pytest
import torch

from lightning_attnbal.apply.cache._store import ActivationStore
from tests.unit.apply.cache.stored import found, key, rows

KIB, MIB = 2**10, 2**20


def fill(space, num_rows, *shape, dtype=torch.float16):
    row = [torch.ones(shape, dtype=dtype)]
    return space.put([key(i) for i in range(num_rows)], [row] * num_rows)


@pytest.mark.parametrize("shape", [(64, 384), (16,), (100, 3)], ids=str)
@pytest.mark.parametrize("ram", [256 * KIB, MIB, 10 * MIB], ids=["256KiB", "1MiB", "10MiB"])
def test_ram_is_used_up_and_not_exceeded(ram, shape):
    size = 2 * torch.Size(shape).numel()
    with ActivationStore(ram=ram) as store:
        stored = fill(store.space("cut"), ram // size + 10, *shape)
        stats = store.stats
        assert ram - size - 2 * KIB - 320 < stats.ram_bytes <= ram
        assert stats.rows == stored == ram // size + 10 - stats.rows_refused


def test_overhead_is_below_two_percent_at_49_kb_rows():
    with ActivationStore(ram="20MiB") as store:
        stored = fill(store.space("cut"), 500, 64, 384)
        assert stored * 64 * 384 * 2 / (20 * MIB) > 0.98


GROWTH = """
import sys, torch
from lightning_attnbal.apply.cache._store import ActivationStore

def resident():
    fields = dict(l.split(":") for l in open("/proc/self/status") if ":" in l)
    return 1024 * int(fields["VmRSS"].split()[0])

def fill(store, num_rows, name):
    row = [torch.ones({numel}, dtype=torch.float16)]
    space = store.space(name)
    for i in range(0, num_rows, 100):
        keys = [j.to_bytes(16, "big") for j in range(i, i + 100)]
        space.put(keys, [row] * 100)

with ActivationStore(ram="4MiB") as store:
    fill(store, 200, "warm up")
before = resident()
with ActivationStore(ram={ram}) as store:
    fill(store, {ram} // (2 * {numel}) + 100, "cut")
    assert store.stats.rows_refused > 0
    print(resident() - before)
    store.drop("cut")
    print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("ram", "numel"), [(32 * MIB, 24576), (32 * MIB, 128), (96 * MIB, 24576)], ids=str
)
def test_the_process_grows_by_the_limit_and_shrinks_again(ram, numel):
    code = GROWTH.format(ram=ram, numel=numel)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    full, empty = map(int, done.stdout.split())
    slack = MIB if numel > 10_000 else ram // 4  # Python keeps part of a large index
    assert ram - slack < full < 1.05 * ram + MIB
    assert empty < 0.05 * ram + slack


@pytest.mark.parametrize(
    "num_rows", [1000, 1400, 44_000], ids=str
)  # a dict doubles at 2 ** n / 1.5
def test_the_index_takes_no_more_than_is_charged(num_rows):
    row = [torch.ones(4)]
    with ActivationStore(ram="64MiB") as store:
        space = store.space("cut")
        space.put([b"first"], [row])
        charged = store.stats.ram_bytes
        tracemalloc.start()
        for i in range(num_rows):
            space.put([key(i)], [row])
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        charged = store.stats.ram_bytes - charged - 16 * num_rows
        assert 0.5 * charged < taken <= 1.02 * charged + 8 * KIB


def test_variable_shapes_are_charged_too():
    with ActivationStore(ram="1MiB") as store:
        space = store.space("cut")
        tracemalloc.start()
        for i in range(300):
            space.put([key(i)], [[torch.ones(i + 1, dtype=torch.uint8)]])
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken <= store.stats.ram_bytes


def test_rows_beyond_the_ram_go_to_disk_and_come_back(tmp_path):
    keys, given = rows(100, 64, 64, dtype=torch.float16)
    with ActivationStore(ram=512 * KIB, disk="1MiB", folder=tmp_path) as store:
        space = store.space("cut")
        assert space.put(keys, given) == 100
        stats = store.stats
        assert stats.ram_bytes > 300 * KIB
        assert stats.disk_bytes > 300 * KIB
        assert found(space, keys, given) == 100
    assert list(tmp_path.iterdir()) == []


def test_a_store_with_both_tiers_full_refuses_rows():
    keys, given = rows(100, 64, 64, dtype=torch.float16)
    with ActivationStore(ram=128 * KIB, disk=128 * KIB) as store:
        space = store.space("cut")
        stored = space.put(keys, given)
        stats = store.stats
        assert stats.rows == stored == found(space, keys, given)
        assert stats.rows_refused == 100 - stored
        assert 20 <= stored <= 32
        assert stats.ram_bytes <= 128 * KIB >= stats.disk_bytes
        assert space.missing(keys) == list(range(stored, 100))


def test_the_index_of_rows_on_disk_stays_within_the_ram():
    with ActivationStore(ram=64 * KIB, disk="8MiB") as store:
        stored = fill(store.space("cut"), 1000, 64)
        stats = store.stats
        assert 100 < stored < 400
        assert stats.ram_bytes <= 64 * KIB
        assert stats.rows_refused == 1000 - stored


def test_a_row_larger_than_everything_is_refused_and_nobody_leaves_for_it():
    with ActivationStore(ram="1MiB") as store:
        fill(store.space("other"), 4, 64, 64)
        assert fill(store.space("cut"), 1, 1024, 1024) == 0
        assert len(store.space("other")) == 4


@pytest.mark.parametrize("disk", [0, 512 * KIB], ids=["ram only", "with disk"])
def test_the_least_recently_used_space_that_is_not_preferred_leaves_whole(disk):
    keys, given = rows(20, 64, 64, dtype=torch.float16)
    with ActivationStore(ram=768 * KIB, disk=disk) as store:
        store.prefer(["new", "kept"])
        kept, used, unused, new = (store.space(n) for n in ("kept", "used", "unused", "new"))
        for space in (kept, unused, used):
            assert space.put(keys, given) == 20
        for _ in range(disk // (512 * KIB)):  # there is room for three more
            fill(store.space("filler"), 62, 64, 64)
        found(used, keys, given)
        assert new.put([key(i) for i in range(60)], given * 3) == 60
        assert len(unused) == 0
        assert found(kept, keys, given) == 20
        assert store.stats.rows_refused <= 62


def test_spaces_that_are_preferred_never_leave():
    with ActivationStore(ram=256 * KIB) as store:
        store.prefer(["one", "two"])
        assert fill(store.space("one"), 20, 64, 64) == 20
        assert fill(store.space("two"), 20, 64, 64) < 12
        assert len(store.space("one")) == 20
        assert fill(store.space("three"), 20, 64, 64) == 0
        store.prefer(["two"])
        assert fill(store.space("two"), 20, 64, 64) > 8
        assert len(store.space("one")) == 0


def test_a_space_does_not_leave_for_its_own_rows():
    with ActivationStore(ram=256 * KIB) as store:
        stored = fill(store.space("cut"), 100, 64, 64)
        assert 25 < stored == len(store.space("cut"))


def test_a_dropped_space_frees_its_room_and_can_be_filled_again(tmp_path):
    keys, given = rows(100, 64, 64, dtype=torch.float16)
    with ActivationStore(ram=256 * KIB, disk="1MiB", folder=tmp_path) as store:
        space = store.space("cut")
        space.put(keys, given)
        store.drop("cut")
        store.drop("unknown")
        stats = store.stats
        assert (len(space), stats.rows, stats.ram_bytes, stats.disk_bytes) == (0, 0, 0, 0)
        assert list(tmp_path.rglob("*")) == []
        assert space.put(keys, given) == 100
        assert found(store.space("cut"), keys, given) == 100


@pytest.mark.parametrize("disk", [0, MIB], ids=["ram only", "with disk"])
def test_a_machine_without_memory_keeps_rows_elsewhere_or_refuses_them(disk, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    with ActivationStore(ram=MIB, disk=disk) as store:
        space = store.space("cut")
        fill(space, 1, 8)
        with monkeypatch.context() as patch:
            patch.setattr(mmap, "mmap", refuse)
            assert fill(space, 20, 64, 64) == (19 if disk else 7)  # 64 KiB were there already
        assert len(store.stats.problems) == 1
        assert "No more rows are kept in RAM: [Errno 12]" in caplog.text

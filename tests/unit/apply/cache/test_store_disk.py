"""Rows on disk: kept, shared, fetched ahead, and a disk that takes no more."""

import os
import shutil
import threading
import time

import pytest
import torch

from lightning_attnbal.apply.cache._store import ActivationStore
from tests.unit.apply.cache.stored import (
    KEYS,
    KIB,
    ROWS,
    fetch,
    files,
    found,
    kept,
    key,
    on_disk,
    rows,
    spoil,
)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize("ram", [0, "64KiB", "8MiB"], ids=["disk", "both", "ram"])
def test_rows_that_are_kept_are_found_by_the_next_run(ram, tmp_path):
    with ActivationStore(ram=ram, disk="8MiB", folder=tmp_path, keep=True) as store:
        store.space("cut").put(KEYS, ROWS)
    with ActivationStore(ram=0, folder=tmp_path) as store:
        space = store.space("cut")
        assert (len(space), len(store.space("other"))) == (40, 0)
        assert found(space, KEYS, ROWS) == 40
        assert space.put(KEYS, ROWS) == 0
        assert (store.stats.disk_bytes, store.stats.problems) == (0, ())
    assert len(files(tmp_path, ".bin")) == len(files(tmp_path, ".json")) > 0


def test_keeping_stays_within_the_disk_limit(tmp_path):
    with ActivationStore(ram="8MiB", disk="80KiB", folder=tmp_path, keep=True) as store:
        store.space("cut").put(KEYS, ROWS)
    with ActivationStore(ram=0, folder=tmp_path) as store:
        assert found(store.space("cut"), KEYS, ROWS) == 10
    assert sum(path.stat().st_size for path in files(tmp_path, ".bin")) == 80 * KIB


def test_kept_rows_say_how_inexact_they_are_and_are_not_found_under_another_dtype(tmp_path):
    given = [[row[0].float()] for row in ROWS]
    with on_disk(tmp_path, keep=True, dtype="int8") as store:
        store.space("cut").put(KEYS, given)
        error = store.stats.error
    with on_disk(tmp_path, dtype="int8") as store:
        space = store.space("cut")
        assert (len(space), store.stats.error) == (40, error)
        (row,) = fetch(space, KEYS[3], [torch.float32])
        assert (row - given[3][0]).abs().max() <= error * given[3][0].abs().max()
    with on_disk(tmp_path) as store:
        assert len(store.space("cut")) == 0


def test_a_temporary_folder_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ActivationStore(ram=0, disk="8MiB") as store:
        store.space("cut").put(KEYS, ROWS)
        assert len(files(tmp_path, ".bin")) == 1
        assert found(store.space("cut"), KEYS, ROWS) == 40
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_forgotten_deletes_its_files(tmp_path):
    store = on_disk(tmp_path)
    store.space("cut").put(KEYS, ROWS)
    assert files(tmp_path, ".bin")
    del store
    assert list(tmp_path.iterdir()) == []


def test_closing_deletes_own_files_only(tmp_path):
    kept(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    (folder,) = {path.parent for path in files(tmp_path, ".bin")}
    (folder / "x.bin").touch()
    with on_disk(tmp_path) as store:
        store.space("cut").put([key(100)], [ROWS[0]])
        store.space("other").put(KEYS, ROWS)
        assert len(files(tmp_path, ".bin")) == 4
    assert sorted(tmp_path.rglob("*")) == sorted([*before, folder / "x.bin"])


def test_a_full_slab_is_seen_by_others_at_once_and_the_open_one_at_the_end(tmp_path):
    with on_disk(tmp_path / "a") as writer, on_disk(tmp_path / "a") as reader:
        theirs, space = writer.space("cut"), reader.space("cut")
        keys, given = rows(200, 64, 64, dtype=torch.float16)  # a slab is an eighth of 8 MiB
        theirs.put(keys, given)
        assert len(space) == 0
        space.refresh()
        assert 100 <= found(space, keys, given) == len(space) < 200
        assert space.put(keys, given) == 200 - 128
        assert found(theirs, keys, given) == found(space, keys, given) == 200


def test_others_lose_nothing_but_rows_when_a_store_deletes_its_files(tmp_path):
    with on_disk(tmp_path) as reader:
        space = reader.space("cut")
        with on_disk(tmp_path) as writer:
            writer.space("cut").put(*rows(200, 64, 64, dtype=torch.float16))
            space.refresh()
            num_rows = len(space)
        out = [[torch.zeros(64, 64)] for _ in range(num_rows)]
        lost = space.read([key(i) for i in range(num_rows)], out)
        assert lost == list(range(num_rows)) == space.missing([key(i) for i in range(num_rows)])
        assert len(reader.stats.problems) == 1
        space.refresh()
        assert space.put(KEYS, ROWS) == 40


# -- prefetch ---------------------------------------------------------------------------------


def test_prefetched_rows_do_not_need_their_file_any_more(tmp_path):
    with ActivationStore(ram="8MiB", folder=kept(tmp_path)) as store:
        space = store.space("cut")
        space.prefetch([*KEYS, b"unknown"])
        wait_for(lambda: store.stats.bytes_prefetched == 40 * 8 * KIB)
        for path in files(tmp_path, ".bin"):
            os.truncate(path, 0)
        assert found(space, KEYS, ROWS) == 40
        assert found(space, KEYS[:1], ROWS[:1]) == 0  # taken once, and not there any more


def test_rows_that_were_fetched_and_never_read_make_room_in_time(tmp_path):
    with ActivationStore(ram="256KiB", folder=kept(tmp_path)) as store:  # four rows are staged
        space = store.space("cut")
        space.prefetch(KEYS[:4])
        wait_for(lambda: store.stats.bytes_prefetched == 4 * 8 * KIB)
        for _ in range(40):
            space.prefetch(KEYS[36:])
        wait_for(lambda: store.stats.bytes_prefetched == 8 * 8 * KIB)
        assert found(space, KEYS, ROWS) == 40


def test_prefetching_more_than_fits_or_what_is_damaged_harms_nobody(tmp_path):
    with ActivationStore(ram="256KiB", folder=kept(tmp_path)) as store:  # four rows are staged
        space = store.space("cut")
        for path in files(tmp_path, ".bin"):
            spoil(path, 8 * KIB * 2)
        for _ in range(100):
            space.prefetch(KEYS)
        assert found(space, KEYS, ROWS) == 39
        space.prefetch(KEYS)
        assert found(space, KEYS, ROWS) == 39


def test_closing_while_rows_are_fetched(tmp_path):
    kept(tmp_path)
    for _ in range(10):
        store = ActivationStore(ram="8MiB", folder=tmp_path)
        store.space("cut").prefetch(KEYS)
        store.close()
    assert not [t for t in threading.enumerate() if t.name == "attnbal-prefetch"]


# -- a disk that takes no more ----------------------------------------------------------------


def refuse(*_, **__):
    raise OSError(28, "No space left on device")


def half(write):
    """Takes half of what is given, and then nothing."""
    calls = []

    def attempt(descriptor, data, offset):
        if calls:
            refuse()
        calls.append(offset)
        return write(descriptor, data[: len(data) // 2], offset)

    return attempt


@pytest.mark.parametrize("how", ["at once", "half way"])
def test_a_full_disk_costs_only_the_rows_that_do_not_fit(how, tmp_path, monkeypatch, caplog):
    with on_disk(tmp_path, keep=True) as store:
        space = store.space("cut")
        assert space.put(KEYS[:10], ROWS[:10]) == 10
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", refuse if how == "at once" else half(os.pwrite))
            assert space.put(KEYS, ROWS) == 0
        assert space.put(KEYS, ROWS) == 0  # it stays off
        assert found(space, KEYS, ROWS) == len(space) == 10
        stats = store.stats
        assert (stats.rows_refused, stats.disk_bytes) == (60, 10 * 8 * KIB)
        assert "No more rows are written to disk: [Errno 28]" in caplog.text
        assert len(caplog.records) == len(stats.problems) == 1
    with on_disk(tmp_path) as store:
        assert found(store.space("cut"), KEYS, ROWS) == len(store.space("cut")) == 10


@pytest.mark.parametrize("call", ["fsync", "ftruncate"])
def test_a_slab_that_cannot_be_sealed_stays_hidden_and_is_deleted(call, tmp_path, monkeypatch):
    with on_disk(tmp_path, keep=True) as store:
        store.space("cut").put(KEYS, ROWS)
        monkeypatch.setattr(os, call, refuse)
    assert list(tmp_path.iterdir()) == []
    assert "No more rows are written to disk" in store.stats.problems[0]


def test_a_folder_that_is_a_file_turns_the_disk_off(tmp_path):
    (tmp_path / "file").touch()
    with ActivationStore(ram="1MiB", disk="1MiB", folder=tmp_path / "file") as store:
        space = store.space("cut")
        assert store.capacity < 2**20
        assert space.put(KEYS, ROWS) == found(space, KEYS, ROWS) == 40
        assert "No more rows are written to disk" in store.stats.problems[0]


def test_a_folder_that_vanishes_turns_the_disk_off(tmp_path):
    folder = tmp_path / "a"
    with on_disk(folder) as store:
        space = store.space("cut")
        space.put(KEYS[:1], ROWS[:1])
        shutil.rmtree(folder)
        keys, given = rows(200, 64, 64, dtype=torch.float16)
        assert space.put(keys, given) < 200
        assert "No more rows are written to disk" in store.stats.problems[0]
        assert found(space, keys, given) == len(space)
    assert not folder.exists()


def test_a_folder_that_may_not_be_written_turns_the_disk_off(tmp_path, monkeypatch):
    opened = os.open

    def read_only(path, flags, *mode, **options):
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *mode, **options)

    with on_disk(kept(tmp_path)) as store:
        space = store.space("cut")
        monkeypatch.setattr(os, "open", read_only)
        assert space.put([key(100)], ROWS[:1]) == 0
        assert found(space, KEYS, ROWS) == 40
        assert "Permission denied" in store.stats.problems[0]

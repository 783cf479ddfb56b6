"""Rows on disk: kept, shared, damaged, and a disk that takes no more."""

import json
import os
import shutil
import threading
import time

import pytest
import torch

from lightning_attnbal.apply.cache._store import ActivationStore
from tests.unit.apply.cache.stored import fetch, found, key, rows

KEYS, ROWS = rows(40, 64, 64, dtype=torch.float16)  # 8 KiB each
KIB = 2**10


def on_disk(folder, **options):
    return ActivationStore(ram=0, disk="8MiB", folder=folder, **options)


def kept(folder, **options):
    """A folder in which an earlier run left its rows."""
    with on_disk(folder, keep=True, **options) as store:
        assert store.space("cut").put(KEYS, ROWS) == len(KEYS)
    return folder


def files(folder, suffix):
    return sorted(folder.rglob(f"*{suffix}"))


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


# -- damage -----------------------------------------------------------------------------------


def spoil(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def truncate(path):
    os.truncate(path, 20 * 8 * KIB + 100)


def replace_by_fifo(path):
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path):
    target = path.rename(path.with_suffix(".moved"))
    path.symlink_to(target)


DAMAGE = {
    "one bit": (lambda path: spoil(path, 5 * 8 * KIB + 77), 39),
    "truncated": (truncate, 20),
    "emptied": (lambda path: os.truncate(path, 0), 0),
    "deleted": (lambda path: path.unlink(), 0),
    "fifo": (replace_by_fifo, 0),
    "link": (replace_by_link, 0),
}


@pytest.mark.parametrize("when", ["before it is opened", "while it is open"])
@pytest.mark.parametrize(("damage", "whole"), DAMAGE.values(), ids=DAMAGE)
def test_rows_of_a_damaged_file_are_not_delivered(damage, whole, when, tmp_path, caplog):
    kept(tmp_path)
    (path,) = files(tmp_path, ".bin")
    if when == "before it is opened":
        damage(path)
    with on_disk(tmp_path) as store:
        space = store.space("cut")
        if when == "while it is open":
            damage(path)
        out = [[torch.zeros(64, 64)] for _ in KEYS]
        space.prefetch(KEYS[:10])
        lost = space.read(KEYS, out)
        if damage is truncate and when == "before it is opened":
            whole = 0  # the index contradicts the file, so nothing of it is believed
        assert len(space.missing(KEYS)) == len(lost) == 40 - whole
        assert found(space, KEYS, ROWS) == len(space) == store.stats.rows == whole
        assert len(store.stats.problems) <= 1
        assert [record.getMessage() for record in caplog.records] == list(store.stats.problems)
        assert space.put(KEYS, ROWS) == 40 - whole
        assert found(space, KEYS, ROWS) == 40


def edit(**changes):
    def apply(content):
        for name, change in changes.items():
            content[name] = change(content[name]) if callable(change) else change
        return json.dumps(content)

    return apply


def first(value):
    return lambda values: [value, *values[1:]]


def leaf(**changes):
    return edit(layouts=lambda layouts: [[layouts[0][0] | changes]])


BAD = {
    "garbage": lambda content: "\x00{",
    "half": lambda content: json.dumps(content)[:500],
    "not utf-8": lambda content: b"\xff\xfe{}",
    "empty": lambda content: "",
    "nested": lambda content: "[" * 100_000,
    "list": lambda content: "[]",
    "long number": lambda content: "1" * 10_000,
    "other version": edit(version=99),
    "other space": edit(space="another"),
    "error is text": edit(error="0"),
    "error is nan": edit(error=float("nan")),
    "error is endless": edit(error=10**400),
    "keys is null": edit(keys=None),
    "key is number": edit(keys=first(7)),
    "key is not hex": edit(keys=first("zz")),
    "key is long": edit(keys=first("ab" * 10_000)),
    "key is missing": edit(keys=lambda keys: keys[1:]),
    "offset beyond": edit(offsets=first(40 * 8 * KIB)),
    "offset partly beyond": edit(offsets=first(40 * 8 * KIB - 16)),
    "offset huge": edit(offsets=first(2**70)),
    "offset negative": edit(offsets=first(-16)),
    "offset is not aligned": edit(offsets=first(3)),
    "offset is a fraction": edit(offsets=first(0.0)),
    "offset is true": edit(offsets=first(True)),
    "size is wrong": edit(sizes=first(16)),
    "size is text": edit(sizes=first("8192")),
    "checksum is negative": edit(crc32=first(-1)),
    "checksum is large": edit(crc32=first(2**32)),
    "layout is unknown": edit(layout_of=first(1)),
    "layout is text": edit(layouts=["x"]),
    "leaf is text": edit(layouts=[["x"]]),
    "layouts differ": edit(layouts=lambda layouts: [layouts[0], [*layouts[0], *layouts[0]]]),
    "shape is huge": leaf(shape=[2**62, 2**62, 0]),
    "shape is negative": leaf(shape=[-64, -64]),
    "shape is text": leaf(shape="64"),
    "shape is long": leaf(shape=[1] * 1000),
    "dtype is unknown": leaf(dtype="object"),
    "dtype is a list": leaf(dtype=[]),
    "dtypes do not match": leaf(stored="int16"),
    "scalar with scales": leaf(shape=[], dtype="float32", stored="int8"),
}


@pytest.mark.parametrize("write", BAD.values(), ids=BAD)
def test_a_bad_index_is_ignored_and_said_once(write, tmp_path, caplog):
    kept(tmp_path)
    (path,) = files(tmp_path, ".json")
    text = write(json.loads(path.read_text()))
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with on_disk(tmp_path) as store:
        space = store.space("cut")
        space.refresh()
        space.refresh()
        assert len(space) == 0
        (problem,) = store.stats.problems
        assert problem.startswith(f"Ignored {path}: ")
        assert [record.getMessage() for record in caplog.records] == [problem]
        assert space.put(KEYS, ROWS) == found(space, KEYS, ROWS) == 40


def test_an_index_may_be_a_folder(tmp_path):
    kept(tmp_path)
    (path,) = files(tmp_path, ".json")
    path.unlink()
    path.mkdir()
    with on_disk(tmp_path) as store:
        assert len(store.space("cut")) == 0
        assert len(store.stats.problems) == 1


def test_rows_of_other_dtypes_than_those_put_are_forgotten(tmp_path):
    given = [[row[0].float(), torch.tensor(1)] for row in ROWS]
    with on_disk(kept(tmp_path)) as store:
        space = store.space("cut")
        assert space.put(KEYS[:30], given[:30]) == 30
        assert found(space, KEYS, given) == len(space) == store.stats.rows == 30
        assert "Forgot rows of dtypes" in store.stats.problems[0]
    with on_disk(tmp_path / "a") as one, on_disk(tmp_path / "a") as two:
        space = one.space("cut")
        space.put(KEYS, ROWS)
        two.space("cut").put(*rows(200, 64, 64))
        space.refresh()
        assert found(space, KEYS, ROWS) == len(space) == 40
        assert "its rows are of dtypes" in one.stats.problems[0]


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

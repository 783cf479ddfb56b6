"""Files that somebody damaged or forged: what is wrong is not delivered, and said once."""

import json
import os

import pytest
import torch

from tests.unit.apply.cache.stored import KEYS, KIB, ROWS, files, found, kept, on_disk, rows, spoil


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

"""Which runs a place on disk holds, and what they are called."""

from __future__ import annotations

import os

import pytest

from lightning_attnbal.cli._runs import find_runs, read_runs


def test_a_file_its_folder_and_a_folder_above_are_the_same_run(write_run, tmp_path):
    path = write_run("mine")
    for place in (path, path.parent, tmp_path):
        assert find_runs([place]) == {"mine": path}


def test_a_run_named_twice_is_one_run(write_run):
    path = write_run("mine")
    assert len(find_runs([path, path.parent])) == 1


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["a", "b"], ["a", "b"]),
        (["logs/version_0", "logs/version_1"], ["version_0", "version_1"]),
        (["a/logs/version_0", "b/logs/version_0"], ["a", "b"]),
        (["a", "a/b"], ["a", "a/b"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_names_are_what_tells_runs_apart(write_run, folders, names):
    assert list(find_runs([write_run(folder).parent for folder in folders])) == names


def test_names_stay_unique_where_a_file_is_called_like_a_folder(write_run, tmp_path):
    first = write_run("mine")
    copy = tmp_path / "mine.jsonl"
    copy.write_bytes(first.read_bytes())
    assert list(find_runs([first, copy])) == [str(first), str(copy)]


def test_the_order_is_as_named_and_sorted_below_a_folder(write_run, tmp_path):
    last, first = write_run("x/b"), write_run("x/a")
    other = write_run("w")
    assert list(find_runs([other, tmp_path / "x"]).values()) == [other, first, last]


def test_events_come_with_the_names(write_run, tmp_path):
    write_run("a")
    write_run("b")
    runs = read_runs([tmp_path])
    assert {name: len(events) for name, events in runs.items()} == {"a": 6, "b": 6}


def test_a_line_cut_short_by_a_kill_is_left_out(write_run):
    path = write_run("mine")
    path.write_bytes(path.read_bytes()[:-20])
    assert len(read_runs([path])["mine"]) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_refused(write_run, tmp_path):
    folder = write_run("mine").parent
    folder.chmod(0)
    try:
        with pytest.raises(PermissionError, match="mine"):
            find_runs([tmp_path])
    finally:
        folder.chmod(0o700)


def test_an_unreadable_folder_below_is_refused(write_run, tmp_path, monkeypatch):
    write_run("a")
    scandir = os.scandir

    def deny(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(PermissionError, match="Permission denied"):
        find_runs([tmp_path])

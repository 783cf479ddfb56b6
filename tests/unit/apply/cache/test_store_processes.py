"""Several processes on one folder, and one that is killed."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from lightning_attnbal.apply.cache._store import ActivationStore
from tests.unit.apply.cache.stored import found, rows

SHAPE = (64, 64)
WRITER = """
import sys, torch
from lightning_attnbal.apply.cache._store import ActivationStore
from tests.unit.apply.cache.stored import rows

keys, given = rows(400, 64, 64, dtype=torch.float16)
store = ActivationStore(ram=0, disk="8MiB", folder=sys.argv[1], keep=True)
space = store.space("cut")
start, stop = map(int, sys.argv[2:4])
for i in range(start, stop):
    space.put(keys[i : i + 1], given[i : i + 1])
    print(i, flush=True)
if sys.argv[4] == "wait":
    print("ready", flush=True)
    sys.stdin.read()
store.close()
"""


def start(folder, first, last, then="close"):
    code = WRITER.replace("sys.argv[1]", f"__import__('pathlib').Path({str(folder)!r})")
    return subprocess.Popen(
        [sys.executable, "-c", code, "", str(first), str(last), then],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def until(process, word):
    for line in process.stdout:
        if line.strip() == word:
            return
    pytest.fail(f"never said {word}")


def end(process, with_signal=None):
    if with_signal is not None:
        process.send_signal(with_signal)
    process.communicate(timeout=60)
    return process.returncode


@pytest.fixture
def given():
    return rows(400, *SHAPE, dtype=torch.float16)


@pytest.mark.parametrize("at", ["60", "300"])
def test_after_a_kill_only_sealed_rows_are_found_and_the_rest_is_swept(at, tmp_path, given):
    process = start(tmp_path, 0, 400)
    until(process, at)
    assert end(process, signal.SIGKILL) == -signal.SIGKILL
    with ActivationStore(ram=0, disk="8MiB", folder=tmp_path) as store:
        space = store.space("cut")
        assert len(space) % 128 == 0  # whole slabs of 1 MiB
        assert len(space) >= int(at) // 128 * 128
        assert found(space, *given) == len(space)
        assert store.stats.problems == ()
        names = [{p.stem for p in tmp_path.rglob(f"*{s}")} for s in (".bin", ".json")]
        assert names[0] == names[1]
        sealed = len(space)
        assert space.put(*given) == 400 - sealed
        assert found(space, *given) == 400


def test_files_of_a_process_that_lives_are_left_alone(tmp_path, given):
    process = start(tmp_path, 0, 30, "wait")
    until(process, "ready")
    before = sorted(tmp_path.rglob("*"))
    with ActivationStore(ram=0, disk="8MiB", folder=tmp_path) as store:
        assert len(store.space("cut")) == 0
        assert sorted(tmp_path.rglob("*")) == before
    assert end(process) == 0
    with ActivationStore(ram=0, folder=tmp_path) as store:
        assert found(store.space("cut"), *given) == 30


def test_two_processes_fill_one_folder_and_both_are_found(tmp_path, given):
    processes = [start(tmp_path, 0, 200), start(tmp_path, 150, 400)]
    assert [end(process) for process in processes] == [0, 0]
    with ActivationStore(ram=0, folder=tmp_path) as store:
        assert found(store.space("cut"), *given) == 400
        assert store.stats.problems == ()


def test_a_run_that_ends_without_close_leaves_nothing_it_should_not(tmp_path, given):
    code = WRITER.replace("store.close()", "").replace("keep=True", "keep=False")
    code = code.replace("sys.argv[1]", f"__import__('pathlib').Path({str(tmp_path)!r})")
    subprocess.run([sys.executable, "-c", code, "", "0", "200", ""], check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_does_not_delete_the_files_of_its_parent(tmp_path, given):
    with ActivationStore(ram=0, disk="8MiB", folder=tmp_path) as store:
        space = store.space("cut")
        space.put(*given)
        child = os.fork()
        if child == 0:
            store.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert found(space, *given) == 400

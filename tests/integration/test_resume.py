"""Killed anywhere and resumed equals never killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_attnbal.tracking import read_events
from tests.integration.tiny import same

ROOT = Path(__file__).parents[2]


def run(folder: Path, *kill_at: int) -> int:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.resumable_run"]
    process = subprocess.run(
        [*command, str(folder), *map(str, kill_at)], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode in {0, -signal.SIGKILL}, process.stderr[-3000:]
    return process.returncode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(folder)
    return folder


def check_equal(folder: Path, reference: Path) -> None:
    load = lambda f: torch.load(f / "weights.pt", weights_only=True)  # noqa: E731
    assert json.loads((folder / "result.json").read_text()) == json.loads(
        (reference / "result.json").read_text()
    )
    assert same(load(folder), load(reference))


def decided(folder: Path) -> list[dict]:
    events = read_events(folder / "attnbal.jsonl")
    return [e.plan for e in events if type(e).__name__ == "PlanDecided"]


def steps(count: int) -> list[int]:
    return random.Random(7).sample(range(2, 31), count)


@pytest.mark.parametrize(
    "batch", [*steps(2), *(pytest.param(n, marks=pytest.mark.slow) for n in steps(7)[2:])]
)
def test_killed_once(tmp_path, uninterrupted, batch):
    assert run(tmp_path, batch) == -signal.SIGKILL
    run(tmp_path)
    check_equal(tmp_path, uninterrupted)
    assert decided(tmp_path) == decided(uninterrupted)


@pytest.mark.slow
def test_killed_again_and_again(tmp_path, uninterrupted):
    for batch in sorted(steps(5)):
        assert run(tmp_path, batch) == -signal.SIGKILL
    run(tmp_path)
    check_equal(tmp_path, uninterrupted)

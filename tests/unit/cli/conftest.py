"""Files of small runs."""

import pytest

from lightning_attnbal.core import Dimension, Plan, UnitKind
from lightning_attnbal.tracking import (
    CostSpent,
    Environment,
    LoadMeasured,
    PlanDecided,
    Recorder,
    RunEnded,
    RunStarted,
    ScoresMeasured,
    UnitInfo,
)


@pytest.fixture
def write_run(tmp_path):
    """Writes a run into a folder of this name and returns its file."""

    def write(name, spent=8e9, accuracy=0.5):
        path = tmp_path / name / "attnbal.jsonl"
        recorder = Recorder(path)
        units = (
            UnitInfo(name="layer.0", index=0, kind=UnitKind.BLOCK, num_parameters=64),
            UnitInfo(name="head", index=1, kind=UnitKind.HEAD, num_parameters=8),
        )
        for event in (
            RunStarted(
                budget="50% of the full run",
                dimension=Dimension.FLOP,
                seed=0,
                units=units,
                environment=Environment.collect("cpu"),
            ),
            LoadMeasured(
                flops={"layer.0": 6e8, "head": 2e8}, seconds={}, saved_bytes={}, reference_cost=2e10
            ),
            PlanDecided(
                plan=Plan({"layer.0": "frozen", "head": "full"}), spent=0.0, remaining=1e10
            ),
            CostSpent(step=9, spent=spent, planned=spent, seconds=3.0, flops=spent),
            ScoresMeasured(step=9, scores={"accuracy": accuracy}),
            RunEnded(step=9, why="budget spent", spent=spent, limit=1e10),
        ):
            recorder.record(event)
        return path

    return write

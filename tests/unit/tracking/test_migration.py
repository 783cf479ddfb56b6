"""A file of an older format opens; one of a newer format is refused."""

import json
from pathlib import Path

import pytest

from lightning_attnbal.core import Dimension
from lightning_attnbal.tracking import (
    FORMAT_VERSION,
    Notice,
    PlanDecided,
    Recorder,
    RunEnded,
    RunStarted,
    build_timeline,
    read_events,
)

FILES = Path(__file__).parent / "files"
V1 = FILES / "v1.jsonl"


def test_file_of_version_1_opens_whole():
    events = read_events(V1)
    lines = [json.loads(line) for line in V1.read_text().splitlines()]
    assert lines[0]["format_version"] == 1
    assert [event.kind for event in events] == [line["kind"] for line in lines]
    assert [event.sequence for event in events] == list(range(len(lines)))
    started, ended = events[0], events[-1]
    assert isinstance(started, RunStarted)
    assert (started.dimension, started.format_version) == (Dimension.FLOP, FORMAT_VERSION)
    assert isinstance(ended, RunEnded)
    assert ended.spent == lines[-1]["spent"]
    plans = [event for event in events if isinstance(event, PlanDecided)]
    assert (
        str(plans[-1].plan) == "cached: embeddings, encoder.layers.0 · full: encoder.layers.1, head"
    )


def test_file_of_version_1_is_drawn():
    assert build_timeline(read_events(V1)).spent_text.startswith("96.0% spent")


def test_what_is_read_can_be_written_and_read_again(tmp_path):
    events = read_events(V1)
    path = tmp_path / "again.jsonl"
    path.write_text("".join(event.to_json() + "\n" for event in events))
    assert read_events(path) == events
    assert json.loads(path.read_text().splitlines()[0])["format_version"] == FORMAT_VERSION


def test_every_version_so_far_has_a_file():
    assert {path.stem for path in FILES.glob("v*.jsonl")} == {
        f"v{version}" for version in range(1, FORMAT_VERSION)
    }


def _with_version(path, version):
    first, *rest = V1.read_text().splitlines()
    line = json.dumps({**json.loads(first), "format_version": version})
    path.write_text("\n".join([line, *rest]) + "\n")
    return path


def test_newer_file_is_refused_with_the_remedy(tmp_path):
    path = _with_version(tmp_path / "new.jsonl", FORMAT_VERSION + 1)
    with pytest.raises(ValueError, match=r"line 1 .*newer lightning-attnbal; update to read it"):
        read_events(path)


@pytest.mark.parametrize(
    ("version", "found"),
    [(0, r"in \[1, inf\), but got 0"), ("2", "an integer, but got '2'"), (True, "got True")],
)
def test_nonsense_for_a_version_is_refused(tmp_path, version, found):
    path = _with_version(tmp_path / "odd.jsonl", version)
    with pytest.raises(ValueError, match=rf"line 1 .*`format_version` to be .*{found}"):
        read_events(path)


def test_unknown_kind_is_refused(tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text(V1.read_text() + '{"kind": "weather_observed"}\n')
    with pytest.raises(ValueError, match=r"line 21 .*`kind` to be one of .*'weather_observed'"):
        read_events(path)


def test_file_without_its_beginning_is_read_as_current(tmp_path):
    path = tmp_path / "attnbal.jsonl"
    Recorder(path).record(Notice(text="4 earlier events of this run are not recorded here."))
    assert [event.kind for event in read_events(path)] == ["notice"]

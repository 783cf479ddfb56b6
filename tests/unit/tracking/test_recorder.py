"""The file grows by one line per event, and a resumed run leaves no seam."""

import os

import pytest

from lightning_attnbal.tracking import Notice, Recorder, RunStarted, read_events


class Clock:
    """Moves by a second per look."""

    def __init__(self, now=100.0):
        self.now = now

    def __call__(self):
        self.now += 1.0
        return self.now


def texts(events):
    return [event.text if isinstance(event, Notice) else event.kind for event in events]


def start(path, run, *names):
    recorder = Recorder(path, clock=Clock())
    recorder.record(run[0])
    for name in names:
        recorder.record(Notice(text=name))
    return recorder


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "attnbal.jsonl"


def test_nothing_is_made_before_the_first_event(path):
    Recorder(path)
    assert not path.parent.exists()


def test_the_file_holds_what_memory_holds(path, run):
    recorder = Recorder(path)
    stamped = [recorder.record(event) for event in run]
    assert recorder.events == stamped == read_events(path)
    assert [event.sequence for event in stamped] == list(range(len(run)))


def test_each_event_is_on_disk_at_once(path, run):
    recorder = Recorder(path)
    for n, event in enumerate(run, start=1):
        recorder.record(event)
        assert len(path.read_text(encoding="utf-8").splitlines()) == n


def test_stamps_the_time_since_start(run):
    recorder = Recorder(clock=Clock())
    assert [recorder.record(event).elapsed_seconds for event in run[:3]] == [1.0, 2.0, 3.0]


def test_resume_cuts_off_what_came_after_the_checkpoint(path, run):
    killed = start(path, run, "a")
    state = killed.state_dict()
    killed.record(Notice(text="lost tail"))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "notice", "te')

    resumed = Recorder(path, clock=Clock(5000.0))
    resumed.load_state_dict(state)
    assert texts(read_events(path)) == ["run_started", "a"]
    after = resumed.record(Notice(text="b"))
    assert texts(read_events(path)) == texts(resumed.events) == ["run_started", "a", "b"]
    assert (after.sequence, after.elapsed_seconds) == (2, state["elapsed_seconds"] + 1)
    assert os.listdir(path.parent) == ["attnbal.jsonl"]


def test_a_resumed_run_writes_the_same_file_as_an_undisturbed_one(path, tmp_path, run):
    whole = Recorder(tmp_path / "whole.jsonl", clock=lambda: 0.0)
    for event in run:
        whole.record(event)

    first = Recorder(path, clock=lambda: 0.0)
    for event in run[:6]:
        first.record(event)
    state = first.state_dict()
    first.record(Notice(text="lost"))
    second = Recorder(path, clock=lambda: 0.0)
    second.load_state_dict(state)
    for event in run[6:]:
        second.record(event)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_resume_elsewhere_starts_a_file_that_says_so(path, tmp_path, run):
    state = start(path, run, "a", "b").state_dict()
    elsewhere = tmp_path / "other" / "attnbal.jsonl"
    resumed = Recorder(elsewhere, clock=Clock())
    resumed.load_state_dict(state)
    (notice,) = read_events(elsewhere)
    assert notice.text == "3 earlier events of this run are not recorded here."
    assert notice.sequence == 3
    assert len(read_events(path)) == 3


def test_resume_elsewhere_and_there_again(path, tmp_path, run):
    elsewhere = tmp_path / "other" / "attnbal.jsonl"
    first = Recorder(elsewhere, clock=Clock())
    first.load_state_dict(start(path, run, "a", "b").state_dict())
    first.record(Notice(text="c"))
    state = first.state_dict()
    first.record(Notice(text="lost tail"))
    second = Recorder(elsewhere, clock=Clock())
    second.load_state_dict(state)
    second.record(Notice(text="d"))
    assert texts(read_events(elsewhere))[1:] == ["c", "d"]
    assert [event.sequence for event in read_events(elsewhere)] == [3, 4, 5]


def test_resume_of_a_file_that_lost_events_says_so(path, run):
    state = start(path, run, "a", "b").state_dict()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    resumed = Recorder(path, clock=Clock())
    resumed.load_state_dict(state)
    assert texts(read_events(path)) == [
        "run_started",
        "a",
        "1 earlier events of this run are not recorded here.",
    ]


def test_resume_without_a_file_goes_on_in_memory(run):
    state = start(None, run, "a").state_dict()
    resumed = Recorder(clock=Clock())
    resumed.load_state_dict(state)
    resumed.record(Notice(text="b"))
    assert [event.sequence for event in resumed.events] == [2, 3]


def test_resume_before_any_event(path, run):
    state = Recorder(path).state_dict()
    resumed = Recorder(path)
    resumed.load_state_dict(state)
    resumed.record(run[0])
    assert texts(read_events(path)) == ["run_started"]


def test_a_new_run_sets_an_older_file_aside(path, run):
    for name in ("old", "middle", "new"):
        start(path, run, name)
    names = {"attnbal.jsonl": "new", "attnbal.1.jsonl": "old", "attnbal.2.jsonl": "middle"}
    assert set(os.listdir(path.parent)) == set(names)
    for file, name in names.items():
        assert texts(read_events(path.parent / file)) == ["run_started", name]


def test_resume_never_cuts_another_runs_file(path, run, environment):
    state = start(path, run, "mine").state_dict()
    path.unlink()
    theirs = RunStarted(
        budget="10%", dimension=run[0].dimension, seed=None, units=(), environment=environment
    )
    start(path, [theirs], "theirs", "theirs too")
    resumed = Recorder(path, clock=Clock())
    resumed.load_state_dict(state)
    assert [event.sequence for event in read_events(path)] == [2]
    kept = read_events(path.with_name("attnbal.1.jsonl"))
    assert texts(kept) == ["run_started", "theirs", "theirs too"]


def test_a_line_cut_short_inside_a_character_is_dropped(path, run):
    start(path, run, "ä")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index("ä".encode()) + 1])
    assert texts(read_events(path)) == ["run_started"]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b"\n", "line 2 to be an event, but it is not: Expecting value"),
        (b"__import__('os')\n", "line 2 to be an event, but it is not: Expecting value"),
        (b"\xff\n", "line 2 to be an event, but it is not: 'utf-8' codec"),
        (b"[" * 100_000 + b"\n", "line 2 to be an event, but it is not: maximum recursion"),
        (b'{"kind": "gone"}\n', "line 2 to be an event, but it is not: .*but got 'gone'"),
        (b'{"kind": "notice", "text": 1}\n', "line 2 .* `notice.text` to be a str"),
        (b'{"kind":"notice","text":"","elapsed_seconds":1' + b"0" * 400 + b"}\n", "line 2 .*large"),
    ],
    ids=["empty", "code", "encoding", "depth", "kind", "type", "huge"],
)
def test_a_bad_line_is_named(path, run, line, match):
    start(path, run)
    with path.open("ab") as file:
        file.write(line)
    with pytest.raises(ValueError, match=match):
        read_events(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        read_events(tmp_path / "none.jsonl")

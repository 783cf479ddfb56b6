"""Events survive JSON, and nothing else gets in."""

import json
import math

import pytest

from lightning_attnbal.core import Unit, UnitKind
from lightning_attnbal.tracking import (
    ContributionMeasured,
    CostSpent,
    Environment,
    Event,
    LoadMeasured,
    Notice,
    UnitInfo,
)


def changed(event, **fields):
    return json.dumps(json.loads(event.to_json()) | fields)


def test_every_kind_comes_back_equal(run):
    assert [Event.from_json(event.to_json()) for event in run] == run
    assert {event.kind for event in run} == {
        "run_started",
        "load_measured",
        "cache_used",
        "contribution_measured",
        "plan_decided",
        "cost_spent",
        "notice",
        "run_ended",
    }


def test_a_line_is_plain_json_with_the_kind_first(run):
    for event in run:
        line = event.to_json()
        assert "\n" not in line
        assert list(json.loads(line))[:5] == [
            "kind",
            "step",
            "epoch",
            "sequence",
            "elapsed_seconds",
        ]


def test_the_plan_is_written_as_the_plan_writes_itself(run):
    assert json.loads(run[4].to_json())["plan"] == run[4].plan.to_dict()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_becomes_null_and_reads_as_nan(value):
    line = ContributionMeasured(values={"head": value}, cost=value).to_json()
    assert json.loads(line)["values"] == {"head": None}
    back = Event.from_json(line)
    assert math.isnan(back.cost)
    assert math.isnan(back.values["head"])


def test_null_stays_none_where_none_is_allowed():
    line = CostSpent(spent=1.0, planned=1.0, seconds=1.0, flops=1.0).to_json()
    assert Event.from_json(line).learning_rate is None


def test_a_missing_field_takes_its_default():
    assert Event.from_json('{"kind": "notice", "text": "x"}') == Notice(text="x")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"kind": "notce", "text": "x"}', "`kind` to be one of .*'notice'.* but got 'notce'"),
        ('{"text": "x"}', "`kind` to be one of .* but got None"),
        ('{"kind": "notice"}', "`notice` to have the fields .*text, but got none"),
        ('{"kind": "notice", "text": "x", "eval": 1}', "fields .* but got 'text', 'eval'"),
        ('{"kind": "notice", "text": "x", "elapsed_seconds": NaN}', "finite, but got NaN"),
        ('{"kind": "notice", "text": "x", "elapsed_seconds": 1e999}', "but got inf"),
        ('{"kind": "notice", "text": "x", "step": 99999999999999999999}', "`notice.step`"),
        ('{"kind": "notice", "text', "Unterminated string"),
        ('{"kind": "run_started", "format_version": 3}', "at most 2, but got 3.*update"),
    ],
)
def test_wrong_values_are_refused(line, match):
    with pytest.raises(ValueError, match=match):
        Event.from_json(line)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("[1]", "JSON object, but got list"),
        ('{"kind": "notice", "text": 3}', "`notice.text` to be a str, but got 3 of type int"),
        ('{"kind": "notice", "text": "x", "step": true}', "`notice.step` to be an integer"),
        ('{"kind": "notice", "text": "x", "step": "1"}', "`notice.step` to be an integer"),
        ('{"kind": "notice", "text": "x", "elapsed_seconds": "1"}', "to be a number, but got '1'"),
    ],
)
def test_wrong_types_are_refused(line, match):
    with pytest.raises(TypeError, match=match):
        Event.from_json(line)


def test_nested_errors_name_the_place(run):
    plan = json.loads(run[4].to_json())["plan"]
    with pytest.raises(ValueError, match=r"`level` to be one of .* but got 'fulll'"):
        Event.from_json(changed(run[4], plan=plan | {"levels": {"head": "fulll"}}))
    with pytest.raises(TypeError, match=r"`plan_decided\.plan\.levels` to be a dict"):
        Event.from_json(changed(run[4], plan=plan | {"levels": ["head"]}))
    with pytest.raises(ValueError, match=r"`run_started\.units\[0\]` to have the fields"):
        Event.from_json(changed(run[0], units=[{"name": "head"}]))
    with pytest.raises(ValueError, match=r"`run_started\.dimension` to be one of 'FLOP', 's'"):
        Event.from_json(changed(run[0], dimension="kg"))
    with pytest.raises(TypeError, match=r"`load_measured\.flops\.head` to be a number"):
        Event.from_json(
            changed(
                LoadMeasured(flops={}, seconds={}, saved_bytes={}, reference_cost=1.0),
                flops={"head": [1]},
            )
        )


def test_events_are_frozen():
    with pytest.raises(AttributeError, match="cannot assign to field 'text'"):
        Notice(text="x").text = "y"


def test_unit_info_of_a_unit():
    unit = Unit("head", 3, UnitKind.HEAD, ("head",), ("head.weight",), 16)
    assert UnitInfo.of(unit) == UnitInfo(
        name="head", index=3, kind=UnitKind.HEAD, num_parameters=16
    )


def test_environment_reports_this_process(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    found = Environment.collect(device="cpu")
    assert (found.device, found.num_threads) == ("cpu", 3)
    assert torch.__version__.startswith(found.torch)


def test_environment_says_when_not_installed(monkeypatch):
    from importlib import metadata

    def version(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    assert Environment.collect(device="cpu").attnbal == "not installed"

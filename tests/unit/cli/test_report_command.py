"""`attnbal report` and `attnbal compare`: files, tables, JSON, and one clear line for bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from lightning_attnbal.cli._app import app
from lightning_attnbal.tracking import FORMAT_VERSION


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def started(*words):
    """The command as a process of its own, with the environment of the tests."""
    code = "from lightning_attnbal.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def two(write_run, tmp_path):
    write_run("full", spent=9e9, accuracy=0.75)
    write_run("balanced", spent=6e9, accuracy=0.7)
    return tmp_path


# -- report ----------------------------------------------------------------------------------


def test_report_is_one_file_with_every_run(two, monkeypatch):
    monkeypatch.chdir(two)
    result = run("report", two)
    assert result.exit_code == 0, result.output
    assert result.stdout == "Wrote attnbal-report.html\n"
    page = (two / "attnbal-report.html").read_text()
    assert "balanced" in page
    assert "fetch(" not in page


def test_report_goes_where_it_is_told_and_opens(two, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    result = run("report", two / "full", "-o", two / "x.html", "--open")
    assert result.exit_code == 0, result.output
    assert opened == [(two / "x.html").as_uri()]


def test_report_json_prints_figures_and_writes_nothing(two, monkeypatch):
    monkeypatch.chdir(two)
    result = run("report", two, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert {entry["name"]: entry["spent"] for entry in data["runs"]} == {
        "balanced": 6e9,
        "full": 9e9,
    }
    assert not list(two.glob("*.html"))


def test_report_without_its_extra_names_it(two, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_attnbal.tracking.report", None)
    result = run("report", two)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_live_serves_the_report_and_ends_with_ctrl_c(two):
    process = started("report", two, "--live")
    line = process.stdout.readline()
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        assert "Ctrl-C" in line
        page = urllib.request.urlopen(url, timeout=60).read().decode()
        assert "balanced" in page
        assert "fetch(" in page
    finally:
        os.kill(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "", "")


def test_live_json_is_the_address(two, monkeypatch):
    monkeypatch.setattr("lightning_attnbal.tracking.live.LiveReport.serve", lambda live: None)
    result = run("report", two, "--live", "--json")
    assert json.loads(result.stdout)["url"].startswith("http://127.0.0.1:")


# -- compare ---------------------------------------------------------------------------------


def test_compare_is_plain_in_a_pipe(two):
    result = run("compare", two / "full", two / "balanced")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert re.match(r"balanced +50% +6 GFLOP +70\.0% +3 s +9", lines[1])
    assert lines[2].split() == ["-33.3%"]
    assert "Differences are to full, the first run named." in lines


def test_compare_json(two):
    result = run("compare", two, "--json", "--metric", "accuracy")
    data = json.loads(result.stdout)
    assert data["base"] == "balanced"
    assert [entry["scores"]["accuracy"] for entry in data["runs"]] == [0.75, 0.7]


def test_compare_by_an_unknown_metric(two):
    result = run("compare", two, "--metric", "f1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == ("attnbal: Expected `metric` to be one of accuracy, but got 'f1'.\n")


# -- broken input ----------------------------------------------------------------------------


def break_nothing(path):
    path.unlink()


def break_half_a_line(path):
    path.write_bytes(path.read_bytes()[:40])


def break_empty(path):
    path.write_text("")


def break_binary(path):
    path.write_bytes(bytes(range(256)) * 4)


def break_text(path):
    path.write_text("hello\nworld\n")


def break_other_json(path):
    path.write_text('{"a": 1}\n[2]\n')


def break_middle(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:30] + "\n", *lines[2:]]))


def break_newer(path):
    newer = path.read_text().replace(
        f'"format_version": {FORMAT_VERSION}', f'"format_version": {FORMAT_VERSION + 1}'
    )
    path.write_text(newer)


@pytest.mark.parametrize("command", ["report", "compare"])
@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (break_nothing, "no attnbal.jsonl in it or below"),
        (break_half_a_line, "holds no complete line"),
        (break_empty, "holds no complete line"),
        (break_binary, "Expected line 1 to be an event"),
        (break_text, "Expected line 1 to be an event"),
        (break_other_json, "Expected line 1 to be an event"),
        (break_middle, "Expected line 2 to be an event"),
        (break_newer, "written by a newer lightning-attnbal"),
    ],
    ids=lambda value: value.__name__[6:] if callable(value) else "",
)
def test_a_broken_run_is_one_line_and_exit_code_2(write_run, command, break_it, message):
    path = write_run("mine")
    break_it(path)
    result = run(command, path.parent)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert str(path.parent) in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [["report"], ["report", "--live"], ["compare"]], ids=" ".join)
def test_what_does_not_exist_is_said(tmp_path, options):
    result = run(*options, tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "nowhere' does not exist" in result.stderr


def test_a_report_that_cannot_be_written_is_one_line(two):
    result = run("report", two, "-o", two)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_reader_who_leaves_early_sees_no_traceback(two):
    process = started("compare", two, "--json")
    process.stdout.close()
    with process.stderr:
        assert "Traceback" not in process.stderr.read()
    process.wait(timeout=30)

"""The command as a whole: help, version, completion, and what it loads."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from lightning_attnbal.cli._app import app
from lightning_attnbal.cli._errors import one_line_errors

SIZES = ["num_hidden_layers=12", "hidden_size=32", "num_attention_heads=2", "intermediate_size=64"]
BERT = ("hf:bert", "--tokens", "4,8", *(f"--arg={size}" for size in (*SIZES, "vocab_size=50")))
COMMANDS = ("profile", "plan", "report", "compare", "doctor", "wandb-dashboard")
MAIN = [sys.executable, "-c", "from lightning_attnbal.cli import main; main()"]


def run(*words):
    return CliRunner().invoke(app, list(words))


def in_terminal(*words, **environment):
    """What the command writes to a terminal of 80 columns, and its exit code."""
    master, slave = pty.openpty()
    settings = {**os.environ, "COLUMNS": "80", "TERM": "xterm", **environment}
    process = subprocess.Popen(
        [*MAIN, *words], stdin=slave, stdout=slave, stderr=slave, env=settings
    )
    os.close(slave)
    parts = []
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(master)
    return b"".join(parts).decode(), process.wait(timeout=30)


@pytest.mark.parametrize("words", [(), ("--help",)], ids=["nothing", "help"])
def test_help_lists_every_command(words):
    result = run(*words)
    assert result.exit_code == 0
    assert [name for name in COMMANDS if name not in result.stdout] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_version():
    result = run("--version")
    assert (result.exit_code, result.stdout[:8]) == (0, "attnbal ")


@pytest.mark.parametrize(
    "words", [("prfile",), ("profile",), ("report",), ("compare", "--nope")], ids=" ".join
)
def test_bad_usage_is_exit_code_2(words):
    result = run(*words)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert "Traceback" not in result.stderr


def test_completion_of_the_shell():
    settings = {
        **os.environ,
        "_ATTNBAL_COMPLETE": "complete_bash",
        "COMP_WORDS": "attnbal re",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv[0] = 'attnbal'; from lightning_attnbal.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=settings, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["report"]


def test_help_and_completion_load_no_torch():
    code = (
        "import sys, lightning_attnbal.cli._app\n"
        "print([n for n in ('torch', 'lightning', 'transformers', 'altair') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


def test_a_terminal_gets_frames_and_colours_within_its_columns():
    text, code = in_terminal("--help")
    assert code == 0
    assert "╭─" in text
    assert "\x1b[" in text


def test_no_color_is_respected():
    text, code = in_terminal("--help", NO_COLOR="1")
    assert code == 0
    assert "╭─" in text
    assert not re.search(r"\x1b\[[\d;]*3\d", text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("profile", *BERT),
        ("plan", *BERT, "--steps-per-epoch", "50", "--epochs", "4", "--pretrained"),
        ("doctor", *BERT),
        ("compare",),
    ],
    ids=lambda words: words[0],
)
def test_80_columns_are_enough(words, write_run):
    runs = [str(write_run(name).parent) for name in ("a/lightning_logs/version_0", "b")]
    text, code = in_terminal(*words, *(runs if words == ("compare",) else ()), NO_COLOR="1")
    assert code == 0, text
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line and " … " not in line]


def refuse(error):
    raise error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("Expected `x`\n to be y."), "attnbal: Expected `x` to be y.\n"),
        (KeyError("x"), "attnbal: KeyError: 'x'\n"),
        (ZeroDivisionError(), "attnbal: ZeroDivisionError: ZeroDivisionError\n"),
        (OSError(13, "Permission denied", "f"), "attnbal: [Errno 13] Permission denied: 'f'\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_of_users_are_one_line(error, line, capsys):
    with pytest.raises(typer.Exit, match="2"), one_line_errors():
        refuse(error)
    assert capsys.readouterr().err == line


class StrangeError(Exception):
    """Of nobody's."""


def test_errors_of_libraries_are_one_line(capsys, monkeypatch):
    monkeypatch.setattr(StrangeError, "__module__", "wandb.errors")
    with pytest.raises(typer.Exit, match="2"), one_line_errors():
        refuse(StrangeError("not logged in"))
    assert capsys.readouterr().err == "attnbal: not logged in\n"


def test_what_nobody_expected_is_not_hidden():
    with pytest.raises(StrangeError, match="bug"), one_line_errors():
        refuse(StrangeError("bug"))

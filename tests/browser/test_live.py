"""The live report in a real browser: it updates itself and stays where the reader was."""

from __future__ import annotations

import threading

import pytest

from lightning_attnbal.tracking import Notice
from lightning_attnbal.tracking.live import LiveReport


def render(runs):
    texts = "".join(f"<p>{event.text}</p>" for events in runs.values() for event in events)
    return (
        "<!doctype html><html><head><meta charset='utf-8'><title>Run</title></head>"
        f"<body style='height: 5000px'>{texts}</body></html>"
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "attnbal.jsonl"
    path.write_text(Notice(text="first").to_json() + "\n")
    return path


@pytest.fixture
def live(file):
    with LiveReport(lambda: {"run": file}, render, every_seconds=0.2) as served:
        thread = threading.Thread(target=served.serve)
        thread.start()
        yield served
    thread.join(timeout=10)


@pytest.mark.slow
def test_the_page_follows_the_file_and_keeps_its_place(browser, live, file):
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(error))
    page.goto(live.url)
    page.evaluate("window.scrollTo(0, 1200)")
    with file.open("a") as stream:
        stream.write(Notice(text="second").to_json() + "\n")
    page.get_by_text("second").wait_for(state="attached", timeout=10_000)
    page.wait_for_function("window.scrollY === 1200", timeout=10_000)
    live.close()
    page.wait_for_function("document.title === '(not connected) Run'", timeout=10_000)
    page.close()
    assert problems == []

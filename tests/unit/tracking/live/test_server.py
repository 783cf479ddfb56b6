"""The live report, asked over a real socket."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from lightning_attnbal.tracking import Notice
from lightning_attnbal.tracking.live import LiveReport


def render(runs):
    if not all(runs.values()):
        msg = "Expected `events` to hold a decided plan <yet>."
        raise ValueError(msg)
    texts = "".join(event.text for events in runs.values() for event in events)
    return f"<html><body><p>{texts}</p></body></html>"


class Client:
    """Asks one server."""

    def __init__(self, live):
        self.address = urlsplit(live.url).netloc

    def ask(self, path="/", *, host=None, method="GET"):
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True)
            if host != "":
                connection.putheader("Host", host or self.address)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "attnbal.jsonl"
    path.write_text(Notice(text="first").to_json() + "\n")
    return path


@pytest.fixture
def serve():
    """Starts servers in threads, and ends them."""
    started = []

    def start(find, draw=render, **options):
        live = LiveReport(find, draw, **options)
        thread = threading.Thread(target=live.serve)
        thread.start()
        started.append((live, thread))
        return Client(live)

    yield start
    for live, thread in started:
        live.close()
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_page_holds_the_report_and_asks_for_news(serve, file):
    status, page, headers = serve(lambda: {"run": file}).ask()
    assert status == 200
    assert "<p>first</p>" in page
    assert page.index("fetch(") < page.index("</body>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"


def test_version_and_page_change_when_a_line_is_complete(serve, file):
    client = serve(lambda: {"run": file})
    before = client.ask("/version")[1]
    assert before == client.ask("/version")[1]
    assert before in client.ask()[1]
    with file.open("a") as stream:
        stream.write(Notice(text="second").to_json())
    assert "second" not in client.ask()[1]
    with file.open("a") as stream:
        stream.write("\n")
    after = client.ask("/version")[1]
    assert after != before
    page = client.ask()[1]
    assert "<p>firstsecond</p>" in page
    assert after in page


def test_page_is_drawn_once_per_version(serve, file):
    drawn = []
    client = serve(lambda: {"run": file}, lambda runs: drawn.append(1) or render(runs))
    for _ in range(3):
        client.ask()
        client.ask("/version")
    assert len(drawn) == 1


def test_a_run_that_begins_later_appears(serve, file, tmp_path):
    runs = {"one": file}
    client = serve(lambda: dict(runs))
    client.ask()
    other = tmp_path / "other.jsonl"
    other.write_text(Notice(text="other").to_json() + "\n")
    runs["two"] = other
    assert "firstother" in client.ask()[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("", "hold a decided plan &lt;yet&gt;", id="nothing yet"),
        pytest.param("no event\n", "Expected line 1 to be an event", id="broken"),
        pytest.param(None, "No such file", id="gone"),
    ],
)
def test_what_cannot_be_drawn_is_said_on_a_page_that_keeps_asking(serve, file, content, message):
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    client = serve(lambda: {"run": file})
    status, page, _ = client.ask()
    assert status == 200
    assert message in page
    assert "fetch(" in page
    file.write_text(Notice(text="now").to_json() + "\n")
    assert "<p>now</p>" in client.ask()[1]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", ""])
def test_foreign_names_are_refused(serve, file, host):
    status, text, _ = serve(lambda: {"run": file}).ask(host=host)
    assert status == 403
    assert "first" not in text


def test_localhost_is_no_foreign_name(serve, file):
    client = serve(lambda: {"run": file})
    assert client.ask(host=f"localhost:{client.address.rpartition(':')[2]}")[0] == 200


def test_there_is_nothing_else(serve, file):
    client = serve(lambda: {"run": file})
    assert client.ask("/attnbal.jsonl")[0] == 404
    assert client.ask("/../../etc/passwd")[0] == 404
    assert client.ask(method="POST")[0] == 501
    status, body, headers = client.ask(method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 0


def test_only_this_machine_is_listened_to(file):
    with LiveReport(lambda: {"run": file}, render) as live:
        assert live.url.startswith("http://127.0.0.1:")
        port = urlsplit(live.url).port
        with socket.socket() as other, pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", port))


def test_a_taken_port_is_refused_and_a_closed_one_is_free(file):
    with LiveReport(lambda: {"run": file}, render) as live:
        port = urlsplit(live.url).port
        with pytest.raises(OSError, match="in use"):
            LiveReport(lambda: {"run": file}, render, port=port)
    live.close()
    with LiveReport(lambda: {"run": file}, render, port=port) as again:
        assert again.url == live.url


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 70000}, r"`port` to be in \[0, 65535\], but got 70000"),
        ({"every_seconds": 0}, r"`every_seconds` to be in \(0, inf\), but got 0"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LiveReport(dict, render, **options)


def test_ctrl_c_ends_it_cleanly(file):
    code = (
        "import signal; from pathlib import Path\n"
        "from lightning_attnbal.tracking.live import LiveReport\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs ignore it
        f"with LiveReport(lambda: {{'run': Path({str(file)!r})}}, lambda runs: '') as live:\n"
        "    print(live.url, flush=True); live.serve()\n"
        "print('ended')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with urlopen(process.stdout.readline().strip(), timeout=20) as answer:
        assert answer.status == 200
        answer.read()
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, "ended\n", "")

"""Serves a report on this machine, drawn anew when the files of its runs have grown."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from typing_extensions import override

from lightning_attnbal.core import check_integer, check_number
from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._recorder import read_events
from lightning_attnbal.tracking.live._page import follow, waiting_page

_ADDRESS = "127.0.0.1"  # never another: what a run holds is nobody else's business

Find = Callable[[], Mapping[str, Path]]
Render = Callable[[Mapping[str, Sequence[Event]]], str]


class LiveReport:
    """A web server on 127.0.0.1 for one page, which follows the runs it shows.

    `/` is the report, drawn when it is asked for and the files have changed since; `/version` is a
    word that changes with them, which the page asks for every `every_seconds`. Requests under
    another name than 127.0.0.1 or localhost are refused, so that no web site that a browser has
    open can read the page by pointing its own name here (DNS rebinding).

    Args:
        find: name → file of the runs, called for each look, so that new runs appear.
        render: draws the page, such as `lightning_attnbal.tracking.report.render_report`.
        port: in [0, 65535]; 0 takes a free one.
        every_seconds: between two looks of the page, in (0, inf).

    Raises:
        OSError: the port is taken.
        ValueError: an argument is out of range.

    Example:
        >>> from urllib.request import urlopen
        >>> with LiveReport(dict, lambda runs: f"<body>{len(runs)} runs</body>") as live:
        ...     threading.Thread(target=live.serve, daemon=True).start()
        ...     page = urlopen(live.url).read().decode()
        >>> page[:12], "fetch" in page
        ('<body>0 runs', True)
    """

    def __init__(
        self, find: Find, render: Render, *, port: int = 0, every_seconds: float = 2.0
    ) -> None:
        check_integer("port", port, low=0, high=65535)
        check_number("every_seconds", every_seconds, low=0, low_open=True)
        self._page = _LivePage(find, render, every_seconds)
        self._server = _Server((_ADDRESS, port), partial(_Handler, self._page))
        self._is_serving = False

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{_ADDRESS}:{self._server.server_port}/"

    def serve(self) -> None:
        """Answer until `close`, or until Ctrl-C, which ends it without an error."""
        self._is_serving = True
        try:
            self._server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            self._is_serving = False

    def close(self) -> None:
        """Stop answering and give the port back. Safe to call twice, and from another thread."""
        if self._is_serving:
            self._server.shutdown()
            self._is_serving = False
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    """Says nothing of a browser that went away before it had its answer."""

    daemon_threads = True

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _LivePage:
    """The page and its version; drawn once per version, whoever asks."""

    def __init__(self, find: Find, render: Render, every_seconds: float) -> None:
        self._find, self._render, self._every_seconds = find, render, every_seconds
        self._lock = threading.Lock()
        self._drawn = ("", "")

    def version(self) -> str:
        """Changes when a file appears, goes, or is written to."""
        try:
            marks = [(name, str(path), _mark(path)) for name, path in self._find().items()]
        except (OSError, ValueError) as error:  # shown on the page
            marks = [("", str(error), (0, 0))]
        return hashlib.sha256(repr(marks).encode()).hexdigest()[:16]

    def html(self) -> str:
        """The page as the files are now, or why there is none yet."""
        with self._lock:
            version = self.version()
            if version != self._drawn[0]:
                self._drawn = (version, follow(self._draw(), version, self._every_seconds))
            return self._drawn[1]

    def _draw(self) -> str:
        try:
            return self._render({name: read_events(path) for name, path in self._find().items()})
        except (OSError, ValueError) as error:  # a run that has decided nothing yet, for one
            return waiting_page(str(error))


def _mark(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the two addresses there are."""

    server_version, sys_version = "attnbal", ""
    timeout = 30  # seconds that a silent connection is kept

    def __init__(self, page: _LivePage, *args: Any) -> None:
        self._page = page
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer with a page or a version."""
        assert isinstance(self.server, ThreadingHTTPServer)
        port = self.server.server_port
        if self.headers.get("Host") not in {f"{_ADDRESS}:{port}", f"localhost:{port}"}:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "Only for this machine.\n")
        elif self.path == "/":
            self._send(HTTPStatus.OK, "text/html", self._page.html())
        elif self.path == "/version":
            self._send(HTTPStatus.OK, "text/plain", self._page.version())
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "There is / and /version.\n")

    do_HEAD = do_GET  # noqa: N815

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "frame-ancestors 'none'"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing for each request."""

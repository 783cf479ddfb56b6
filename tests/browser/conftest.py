"""A real browser: the system's Chromium, driven by Playwright."""

import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Visit:
    """A page opened from disk, with what it asked for and complained about."""

    def __init__(self, page):
        self.page, self.requests, self.complaints, self.dialogs = page, [], [], []
        page.route("**/*", self._route)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._dismiss)

    def _route(self, route):
        if route.request.url.startswith("file://") and route.request.is_navigation_request():
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()

    def _dismiss(self, dialog):
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; the tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser found: looked for {', '.join(NAMES)}")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def visit(browser):
    """`with visit(path, width=360, scheme="dark") as v`: the page, offline."""

    @contextmanager
    def opened(path, *, width=1400, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            offline=True,
            reduced_motion="reduce",
        )
        visit = Visit(context.new_page())
        visit.page.goto(path.as_uri())
        yield visit
        context.close()

    return opened

"""What the served page has and the file has not: it asks for news, and keeps its place."""

from __future__ import annotations

from html import escape

_SCRIPT = """<script>
(() => {
  const version = "%s", place = "attnbal-scroll";
  const kept = Number(sessionStorage.getItem(place));
  sessionStorage.removeItem(place);
  const until = Date.now() + 3000;  // charts grow the page after it was loaded
  const goBack = () => {
    window.scrollTo(0, kept);
    if (window.scrollY < kept - 1 && Date.now() < until) requestAnimationFrame(goBack);
  };
  if (kept) goBack();
  const look = async () => {
    try {
      const answer = document.hidden ? version : await (await fetch("version")).text();
      if (answer !== version) {
        sessionStorage.setItem(place, window.scrollY);
        location.reload();
        return;
      }
    } catch (error) {
      document.title = "(not connected) " + document.title.replace(/^\\(not connected\\) /, "");
    }
    setTimeout(look, %d);
  };
  setTimeout(look, %d);
})();
</script>
"""

_WAITING = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Waiting for the run</title>
</head>
<body style="font: 1.1rem system-ui, sans-serif; max-width: 40rem; margin: 4rem auto">
<h1>Waiting for the run</h1>
<p role="status">{reason}</p>
</body>
</html>
"""


def follow(page: str, version: str, every_seconds: float) -> str:
    """The page, made to load itself again, at the same place, when the version is another.

    Args:
        page: HTML.
        version: of the page, letters and digits.
        every_seconds: between two questions, in (0, inf).
    """
    milliseconds = round(1000 * every_seconds)
    script = _SCRIPT % (version, milliseconds, milliseconds)
    head, end, tail = page.rpartition("</body>")
    return f"{head}{script}{end}{tail}" if end else f"{page}{script}"


def waiting_page(reason: str) -> str:
    """A page for as long as there is nothing to draw, with the reason.

    Example:
        >>> "no plan &lt;yet&gt;" in waiting_page("no plan <yet>")
        True
    """
    return _WAITING.format(reason=escape(reason))

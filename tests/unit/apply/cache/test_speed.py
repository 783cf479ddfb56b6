"""A prefix that is slower to read than to compute is not cached."""

import pytest

from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._speed import Speed


def is_refused(read, computed, *, calls=40, rows=(8, 8)):
    """Whether so many calls, of seconds and rows when read and when computed, are too slow."""
    speed = Speed()
    try:
        for _ in range(calls):
            speed.note(computed, rows=rows[1], is_read=False)
            speed.note(read, rows=rows[0], is_read=True)
    except NotCacheableError:
        return True
    return False


@pytest.mark.parametrize(
    ("read", "computed", "options", "refused"),
    [
        pytest.param(2.0, 1.0, {}, True, id="slower"),
        pytest.param(0.5, 1.0, {}, False, id="faster"),
        pytest.param(2.0, 1.0, {"calls": 10}, False, id="too few calls to tell"),
        pytest.param(1.0, 8.0, {"rows": (2, 8)}, False, id="faster by sample"),
        pytest.param(3.0, 8.0, {"rows": (2, 8)}, True, id="slower by sample"),
    ],
)
def test_slower_reading_is_refused(read, computed, options, refused):
    assert is_refused(read, computed, **options) == refused

"""A prefix that is slower to read than to compute is not cached."""

import pytest

from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._speed import Speed


def fed(read, computed, calls=40):
    speed = Speed()
    for _ in range(calls):
        speed.note(computed, rows=8, is_read=False)
        speed.note(read, rows=8, is_read=True)


def test_slower_reading_is_refused():
    with pytest.raises(NotCacheableError, match="takes longer"):
        fed(read=2.0, computed=1.0)


def test_faster_reading_is_not():
    fed(read=0.5, computed=1.0)


def test_a_few_slow_calls_tell_nothing():
    fed(read=2.0, computed=1.0, calls=10)


def test_smaller_batches_are_compared_by_sample():
    speed = Speed()
    for _ in range(40):
        speed.note(8.0, rows=8, is_read=False)
        speed.note(1.0, rows=2, is_read=True)

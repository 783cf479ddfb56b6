"""Twins that are taken apart again."""

import pytest

from tests.unit.apply.cache.prefixed import Twins, traces


@pytest.fixture
def make():
    made = []

    def build(*args, **kwargs):
        made.append(Twins(*args, **kwargs))
        return made[-1]

    yield build
    for twins in made:
        twins.close()
        assert traces(twins.model) == []

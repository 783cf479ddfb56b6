"""The frontier against trying every plan."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_attnbal.allocate import frontier


@pytest.mark.parametrize("with_memory", [False, True], ids=["cost only", "cost and memory"])
@pytest.mark.parametrize("num_tasks", [1, 2])
def test_frontier_equals_brute_force(draw, brute_force, num_tasks, with_memory):
    for seed in range(30):
        problems, rng = draw(seed, num_tasks=num_tasks, max_units=3)
        mixes = brute_force(problems)
        memory = float(rng.choice([m[2] for m in mixes])) if with_memory else None
        expected: list[tuple[float, float]] = []
        for cost, value, size in sorted(mixes, key=lambda m: (m[0], -m[1])):
            fits = memory is None or size <= memory
            if fits and (not expected or value > expected[-1][1] + 1e-12):
                expected.append((cost, value))
        points = frontier(problems, memory=memory)
        np.testing.assert_allclose([(p.cost, p.value) for p in points], expected, atol=1e-9)
        assert max(p.gap for p in points) <= 1e-9


def test_frontier_prices_fall_and_end_at_zero(draw):
    problems, _ = draw(3, max_units=4)
    prices = [point.shadow_price for point in frontier(problems)]
    assert prices == sorted(prices, reverse=True)
    assert prices[-1] == 0.0


def test_cut_frontier_keeps_its_ends_and_true_bounds(large):
    problem = large(whole=False)
    full, cut = frontier(problem, resolution=5000), frontier(problem, resolution=40)
    assert len(cut) <= 41
    assert cut[0].cost == pytest.approx(full[0].cost)
    assert cut[-1].value == pytest.approx(full[-1].value)
    for point in cut:
        assert point.bound >= max(f.value for f in full if f.cost <= point.cost) - 1e-9
    assert [p.value for p in cut] == sorted(p.value for p in cut)

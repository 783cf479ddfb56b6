"""Random small joint problems, and the trusted reference: try every share and every plan."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from lightning_attnbal.core import (
    CACHED,
    DETACHED,
    FROZEN,
    FULL,
    LOCAL,
    Menu,
    Option,
    Problem,
    lora,
)
from lightning_attnbal.multitask import TaskTerms

LEVELS = (CACHED, FROZEN, DETACHED, LOCAL, lora(2), FULL)
GRID = 4


@dataclass(frozen=True)
class Kind:
    """What an instance has besides plain additive tasks."""

    bounds: bool = False
    cached: bool = False
    concave: bool = False
    memory: bool = False
    whole: bool = False


def saturating(problem):
    """v · 20 · (1 - exp(-n / 20)): concave in the steps, through the plan's value alone."""

    def gain(levels, steps):
        return problem.evaluate(levels)[1] * -20 * np.expm1(-steps / 20)

    return gain


def draw_terms(rng, kind):
    """Two or three tasks over one to three shared units and a head of each."""
    num_tasks = int(rng.integers(2, 4))
    num_shared = int(rng.integers(1, 4 if num_tasks == 2 else 3))
    return [_draw_task(rng, kind, i, num_tasks, num_shared) for i in range(num_tasks)]


def _draw_task(rng, kind, index, num_tasks, num_shared):
    def number(high):
        return float(rng.integers(0, high + 1)) if kind.whole else float(rng.uniform(0, high))

    def option(level):
        value = number(4) if kind.concave else number(6) - 1
        return Option(
            level=level,
            cost=number(9),
            cost_above=number(5),
            once=number(20) if level == CACHED else 0.0,
            value=value,
            memory=number(9),
            memory_above=number(5),
        )

    def shared(unit):
        more = {LEVELS[i] for i in rng.choice(len(LEVELS), int(rng.integers(1, 3)), replace=False)}
        chosen = more | {FROZEN} | ({CACHED} if kind.cached and rng.random() < 0.7 else set())
        levels = sorted(chosen if kind.cached else chosen - {CACHED}, key=str)
        return Menu(unit, tuple(option(level) for level in levels))

    menus = [shared(f"unit.{k}") for k in range(num_shared)]
    for k in range(num_tasks):
        own = (option(FULL), option(FROZEN)) if k == index else (Option(level=FROZEN, cost=0),)
        menus.append(Menu(f"head.{k}", own))
    problem = Problem(tuple(menus), fixed=1 + number(3), task=f"task.{index}")
    floor = float(rng.choice([0.0, 0.2, 0.25])) if kind.bounds else 0.0
    return TaskTerms(
        problem=problem,
        weight=float(rng.uniform(0.5, 2)),
        floor=floor,
        cap=float(rng.choice([0.5, 0.8, 1.0])) if kind.bounds else 1.0,
        gain=saturating(problem) if kind.concave else None,
        epoch_steps=int(rng.integers(1, 30)) if rng.random() < 0.5 else None,
    )


def plans_over(terms, depth, memory):
    """(levels, cost, one-off) of the plans that go with `depth` cached units everywhere."""
    found = []
    for levels in product(*([o.level for o in m.options] for m in terms.problem.menus)):
        if terms.problem.why_invalid(levels) is not None:
            continue
        cost, _, peak = terms.problem.evaluate(levels)
        pairs = list(zip(terms.problem.menus, levels, strict=True))
        below = all(lv == CACHED or _is_unused(menu) for menu, lv in pairs[:depth])
        above = all(lv != CACHED for lv in levels[depth:])
        if below and above and (memory is None or peak <= memory):
            found.append((levels, cost, terms.problem.one_off(levels)))
    return found


def least_memory(terms):
    """Peak of the smallest plan of the task that needs most."""
    peaks = [
        [
            t.problem.evaluate(levels)[2]
            for depth in range(len(t.problem.menus))
            for levels, *_ in plans_over(t, depth, None)
        ]
        for t in terms
    ]
    return max(min(task) for task in peaks)


def _is_unused(menu):
    return menu.options == (Option(level=FROZEN, cost=0),)


def gain_of(terms, levels, steps):
    """Weighted gain of so many steps, 0 for none."""
    if not steps:
        return 0.0
    if terms.gain is None:
        return terms.weight * steps * terms.problem.evaluate(levels)[1]
    return terms.weight * float(terms.gain(levels, np.array([steps]))[0])


def every_choice(terms, totals, memory=None, grid=GRID):
    """(cost, Σ gain, least gain) of every choice of steps, shares, prefix and plans, (n, 3)."""
    blocks = []
    for depth in range(len(terms[0].problem.menus)):
        plans = [plans_over(task, depth, memory) for task in terms]
        for total, shares in product(totals, product(range(grid + 1), repeat=len(terms))):
            fits = all(
                grid * t.floor - 1e-9 <= g <= grid * t.cap + 1e-9
                for t, g in zip(terms, shares, strict=True)
            )
            if sum(shares) != grid or not fits:
                continue
            figures = [
                _figures(task, plans[i], total * shares[i] / grid) for i, task in enumerate(terms)
            ]
            blocks.append(_combined(figures))
    return np.concatenate(blocks)


def _figures(task, plans, steps):
    """(cost, gain) of every plan at so many steps, (J, 2); nothing for no steps."""
    if not steps:
        return np.zeros((1, 2))
    epoch = task.epoch_steps or 1
    return np.array(
        [
            (steps * cost + min(1.0, steps / epoch) * once, gain_of(task, levels, steps))
            for levels, cost, once in plans
        ]
    ).reshape(-1, 2)


def _combined(figures):
    cost, total, least = np.zeros(1), np.zeros(1), np.full(1, np.inf)
    for task in figures:
        cost = np.add.outer(cost, task[:, 0]).ravel()
        total = np.add.outer(total, task[:, 1]).ravel()
        least = np.minimum.outer(least, task[:, 1]).ravel()
    return np.column_stack([cost, total, least])


def stack(task, seed=0, num_units=4, values=None):
    """Blocks with the usual levels, forward 1 and dX 1 up to noise."""
    rng = np.random.default_rng(seed)
    menus = []
    for k in range(num_units):
        forward = float(rng.uniform(0.5, 1.5))
        value = float(rng.lognormal()) if values is None else values[k]
        options = (
            Option(level=FROZEN, cost=forward, cost_above=forward, memory=1, memory_above=3),
            Option(level=FULL, cost=2 * forward, cost_above=forward, value=value, memory=6),
            Option(level=CACHED, cost=0.02 * forward),
        )
        menus.append(Menu(f"unit.{k}", options))
    return Problem(tuple(menus), fixed=0.1, task=task)

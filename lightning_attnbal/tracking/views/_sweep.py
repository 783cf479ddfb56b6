"""A W&B sweep over budgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_attnbal.core import Budget


def budget_sweep(
    budgets: Sequence[str | float], module: str = "recipes.quickstart", name: str = "budgets"
) -> dict[str, Any]:
    """The configuration of a sweep that runs a Hydra program once for each budget.

    Hand it to `wandb.sweep`, or write it to a YAML file for `wandb sweep`; then `wandb agent`.

    Args:
        budgets: values of the program's `budget`, such as "20%" or "45min".
        module: the program, run as `python -m <module> budget=<value>`.
        name: of the sweep.

    Raises:
        ValueError: there are no budgets, or one of them is none.

    Example:
        >>> sweep = budget_sweep(["20%", "40%"])
        >>> sweep["method"], sweep["parameters"]
        ('grid', {'budget': {'values': ['20%', '40%']}})
        >>> budget_sweep(["120%"])
        Traceback (most recent call last):
        ValueError: Expected `budget` to be in (0, 1] as a share of the full run, but got 120%.
    """
    if not budgets:
        msg = "Expected `budgets` to hold at least one budget, but it is empty."
        raise ValueError(msg)
    for budget in budgets:
        Budget.parse(budget)
    return {
        "name": name,
        "method": "grid",
        "program": f"{module.replace('.', '/')}.py",
        "command": ["${env}", "${interpreter}", "-m", module, "${args_no_hyphens}"],
        "parameters": {"budget": {"values": list(budgets)}},
    }

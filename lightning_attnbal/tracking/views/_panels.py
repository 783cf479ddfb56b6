"""Which charts belong together, for the dashboards of W&B and TensorBoard."""

from __future__ import annotations

from lightning_attnbal.tracking.views._keys import Key


def family(*keys: Key) -> str:
    """A regular expression for keys and for what they are per task, pair or part.

    Example:
        >>> family(Key.PLAN_TRAINED, Key.PLAN_CACHED)
        '^(attnbal/plan/num_trained|attnbal/plan/num_cached)(/.*)?$'
    """
    return f"^({'|'.join(keys)})(/.*)?$"


LINES: dict[str, dict[str, tuple[Key, ...] | str]] = {
    "Budget": {
        "spent and planned": (Key.BUDGET_SPENT, Key.BUDGET_PLANNED, Key.BUDGET_LIMIT),
        "share of the budget": (Key.BUDGET_SHARE,),
        "shadow price": family(Key.BUDGET_SHADOW_PRICE),
        "forecast": family(Key.FORECAST_MEAN, Key.FORECAST_LOW, Key.FORECAST_HIGH),
    },
    "Plan": {
        "units trained and cached": family(Key.PLAN_TRAINED, Key.PLAN_CACHED),
        "cost per step": family(Key.PLAN_COST),
        "learning rate": (Key.PLAN_LEARNING_RATE,),
        "factor of the learning rate": family(Key.PLAN_LR_FACTOR),
    },
    "Load": {
        "contribution per step": family(Key.LOAD_CONTRIBUTION),
        "largest cost share": (Key.LOAD_LARGEST_SHARE,),
        "share of rows read from the cache": (Key.LOAD_CACHE_READ,),
        "FLOPs of probes": family(Key.LOAD_PROBE_FLOPS),
    },
    "Tasks": {
        "shares": family(Key.TASK_SHARE),
        "losses": family(Key.TASK_LOSS),
        "spent": family(Key.TASK_SPENT),
        "affinity": family(Key.TASK_AFFINITY),
    },
    "Attention": {"entropy": (Key.ATTENTION_ENTROPY, Key.ATTENTION_LOWEST)},
    "Time": {"seconds per part": family(Key.TIME)},
}
"""Section → title → exact keys, or a regular expression for a family of them."""

FIGURES: dict[str, tuple[str, ...]] = {
    "Budget": ("budget", "frontier", "forecast"),
    "Plan": ("plan", "learning_rate"),
    "Load": ("load", "contribution", "cost", "cost_error"),
    "Tasks": ("shares", "affinity", "scores"),
    "Attention": ("attention_entropy", "attention_importance"),
    "Time": ("time",),
}
"""Section → figures of `tracking.charts`, by name."""

TABLES: dict[str, tuple[Key, ...]] = {"Plan": (Key.DECISIONS,), "Load": (Key.UNITS,)}
"""Section → tables."""

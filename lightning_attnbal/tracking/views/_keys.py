"""Under which names a run is logged, and against which step."""

from __future__ import annotations

from enum import StrEnum


class Key(StrEnum):
    """A log key, `attnbal/<section>/<name>`.

    Costs are in the dimension of the budget (FLOPs or seconds). What there is per task or per part
    goes on after a slash, see `of`.

    Example:
        >>> Key.BUDGET_SPENT, Key.TASK_SHARE.of("news"), Key.ATTENTION_ENTROPY.step_metric
        (<Key.BUDGET_SPENT: 'attnbal/budget/spent'>, 'attnbal/task/share/news', <Key.EPOCH: ...>)
    """

    STEP = "attnbal/step"
    EPOCH = "attnbal/epoch"

    BUDGET_SPENT = "attnbal/budget/spent"
    BUDGET_PLANNED = "attnbal/budget/planned"
    BUDGET_SHARE = "attnbal/budget/share"
    BUDGET_LIMIT = "attnbal/budget/limit"
    BUDGET_SAVED = "attnbal/budget/saved"
    BUDGET_SHADOW_PRICE = "attnbal/budget/shadow_price"
    BUDGET_SECONDS = "attnbal/budget/seconds"
    BUDGET_FLOPS = "attnbal/budget/flops"

    PLAN_COST = "attnbal/plan/cost_per_step"
    PLAN_VALUE = "attnbal/plan/value_per_step"
    PLAN_TRAINED = "attnbal/plan/num_trained"
    PLAN_CACHED = "attnbal/plan/num_cached"
    PLAN_CHANGES = "attnbal/plan/num_changes"
    PLAN_LR_FACTOR = "attnbal/plan/lr_factor"
    PLAN_LEARNING_RATE = "attnbal/plan/learning_rate"

    FORECAST_MEAN = "attnbal/forecast/mean"
    FORECAST_STD = "attnbal/forecast/std"
    FORECAST_LOW = "attnbal/forecast/low"
    FORECAST_HIGH = "attnbal/forecast/high"

    LOAD_REFERENCE = "attnbal/load/reference_cost"
    LOAD_LARGEST_SHARE = "attnbal/load/largest_cost_share"
    LOAD_SAVED_BYTES = "attnbal/load/saved_bytes"
    LOAD_CONTRIBUTION = "attnbal/load/contribution"
    LOAD_PROBE_FLOPS = "attnbal/load/probe_flops"
    LOAD_CACHE_READ = "attnbal/load/cache_read_share"
    LOAD_CACHE_BYTES = "attnbal/load/cache_bytes"
    LOAD_CACHE_FLOPS = "attnbal/load/cache_flops_saved"

    TASK_SHARE = "attnbal/task/share"
    TASK_BATCHES = "attnbal/task/batches"
    TASK_SPENT = "attnbal/task/spent"
    TASK_LOSS = "attnbal/task/loss"
    TASK_AFFINITY = "attnbal/task/affinity"

    ATTENTION_ENTROPY = "attnbal/attention/entropy_mean"
    ATTENTION_LOWEST = "attnbal/attention/entropy_min"

    TIME = "attnbal/time"

    UNITS = "attnbal/units"
    DECISIONS = "attnbal/decisions"
    FIGURE = "attnbal/figure"
    QUALITY = "attnbal/quality"

    def of(self, *names: str) -> str:
        """The key of one task, part, pair or figure: the names follow after slashes."""
        return "/".join((self.value, *names))

    def of_task(self, task: str) -> str:
        """The key itself for a run with the one task "main", else the key of that task."""
        return self.value if task == "main" else self.of(task)

    @property
    def section(self) -> str:
        """The part after `attnbal/`."""
        return self.value.split("/")[1]

    @property
    def step_metric(self) -> Key:
        """Against what it is drawn: optimizer steps, or epochs for what is looked at once a one."""
        return step_metric(self.value)


_PER_EPOCH = {Key.ATTENTION_ENTROPY.section, Key.UNITS.section, Key.FIGURE.section}


def step_metric(key: str) -> Key:
    """`Key.STEP` or `Key.EPOCH`, whichever a key is drawn against.

    Example:
        >>> step_metric("attnbal/task/loss/news"), step_metric("attnbal/figure/plan")
        (<Key.STEP: 'attnbal/step'>, <Key.EPOCH: 'attnbal/epoch'>)
    """
    return Key.EPOCH if key.split("/")[1] in _PER_EPOCH else Key.STEP

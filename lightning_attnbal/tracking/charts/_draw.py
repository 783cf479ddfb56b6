"""One drawing of each figure, for every view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_attnbal.core import check_integer
from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking.charts._extra import check_report_extra

if TYPE_CHECKING:
    from lightning_attnbal.tracking.charts._drawing import Chart


def draw(events: Sequence[Event], *, width: int = 640, max_marks: int = 1500) -> dict[str, Chart]:
    """Draw what a stream has the data for, with Altair.

    | name | shows |
    |------|-------|
    | plan | units × budget spent, the level as colour and thickness; a panel per task |
    | time | waterfall of the wall-clock time |
    | load | each unit's share of the cost beside its share of the contribution |
    | contribution, cost | units × decisions; a panel per task |
    | budget | planned and spent over the steps, with the limit |
    | learning_rate | over the budget spent |
    | scores | a panel per logged metric over the budget spent |
    | frontier | cost of a step against forecast (or value), the chosen plan marked |
    | forecast | forecast loss at the end, with its band, over the decisions |
    | attention_entropy, attention_importance | layers × heads, measured last |
    | shares | each task's share of the batches over the decisions |
    | affinity | tasks × tasks, measured last |
    | cost_error | what was spent over what the plans predicted, over the steps |

    Args:
        events: the stream.
        width: of each picture in pixels, in [240, inf).
        max_marks: most bars or cells in one picture, in [100, inf); neighbouring units and
            decisions are drawn as one beyond that.

    Raises:
        ModuleNotFoundError: Altair is not installed.
        ValueError: a plan was decided, but the stream knows no budget above zero.

    Example:
        >>> from lightning_attnbal.core import Plan
        >>> from lightning_attnbal.tracking import CostSpent, PlanDecided
        >>> plan = Plan({"layer.0": "frozen", "head": "full"})
        >>> charts = draw([
        ...     PlanDecided(plan=plan, spent=0.0, remaining=8.0),
        ...     CostSpent(step=4, spent=4.0, planned=4.1, seconds=1.0, flops=9.0),
        ... ])
        >>> list(charts)
        ['plan', 'budget', 'cost_error']
    """
    check_integer("width", width, low=240)
    check_integer("max_marks", max_marks, low=100)
    check_report_extra()
    from lightning_attnbal.tracking.charts._all import draw_all
    from lightning_attnbal.tracking.charts._drawing import Canvas
    from lightning_attnbal.tracking.charts._style import styled

    drawings = draw_all(events, Canvas(width, max_marks))
    return {name: styled(drawing.chart) for name, drawing in drawings.items()}

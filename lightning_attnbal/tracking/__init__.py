"""One event stream per run: recorded once, then drawn, printed and replayed from."""

from lightning_attnbal.tracking._compare import Comparison, compare_runs
from lightning_attnbal.tracking._detail_events import (
    AttentionMeasured,
    FrontierPoint,
    FrontierSolved,
    ScoresMeasured,
    TimeSpent,
)
from lightning_attnbal.tracking._environment import Environment
from lightning_attnbal.tracking._event import FORMAT_VERSION, Event
from lightning_attnbal.tracking._events import (
    CacheUsed,
    ContributionMeasured,
    CostSpent,
    LoadMeasured,
    Notice,
    PlanDecided,
    RunEnded,
    RunStarted,
    UnitInfo,
)
from lightning_attnbal.tracking._figure import plot_plan
from lightning_attnbal.tracking._outcome import RunOutcome
from lightning_attnbal.tracking._recorder import Recorder, read_events
from lightning_attnbal.tracking._summary import print_summary
from lightning_attnbal.tracking._task_events import (
    AffinityMeasured,
    SharesDecided,
    TasksServed,
)
from lightning_attnbal.tracking._timeline import Span, Timeline, build_timeline

__all__ = [
    "FORMAT_VERSION",
    "AffinityMeasured",
    "AttentionMeasured",
    "CacheUsed",
    "Comparison",
    "ContributionMeasured",
    "CostSpent",
    "Environment",
    "Event",
    "FrontierPoint",
    "FrontierSolved",
    "LoadMeasured",
    "Notice",
    "PlanDecided",
    "Recorder",
    "RunEnded",
    "RunOutcome",
    "RunStarted",
    "ScoresMeasured",
    "SharesDecided",
    "Span",
    "TasksServed",
    "TimeSpent",
    "Timeline",
    "UnitInfo",
    "build_timeline",
    "compare_runs",
    "plot_plan",
    "print_summary",
    "read_events",
]

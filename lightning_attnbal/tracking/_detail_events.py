"""What helps to understand a run: its time, its scores, its alternatives, its attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lightning_attnbal.tracking._event import Event


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """One plan that could have been chosen.

    Args:
        plan: in words, such as "frozen: stem … layer.3 · full: head".
        cost: per step, in the dimension of the budget.
        value: contribution per step, in loss units.
        steps: what the rest of the budget buys of it.
        loss: forecast at the run's end; NaN where nothing was forecast.
        error: standard deviation of the forecast.
        is_chosen: whether it was.

    Example:
        >>> FrontierPoint(plan="full: head", cost=2e9, value=0.1, steps=40).is_chosen
        False
    """

    plan: str
    cost: float
    value: float
    steps: float
    loss: float = float("nan")
    error: float = float("nan")
    is_chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class FrontierSolved(Event):
    """What a decision chose from, cheapest first.

    Args:
        points: the candidates.
        task: name of the task.

    Example:
        >>> point = FrontierPoint(plan="full: head", cost=2e9, value=0.1, steps=40, is_chosen=True)
        >>> solved = FrontierSolved(points=(point,))
        >>> Event.from_json(solved.to_json()).points[0].plan
        'full: head'
    """

    kind: ClassVar[str] = "frontier_solved"

    points: tuple[FrontierPoint, ...]
    task: str = "main"


@dataclass(frozen=True, kw_only=True)
class TimeSpent(Event):
    """Where the wall-clock time went. Totals of the run, so a lost event loses nothing.

    Args:
        seconds: part → seconds; parts are "forward", "activation_gradient", "weight_gradient",
            "optimizer", "data" (waiting for batches), "cache", "probes", "decisions",
            "validation" and "other". The gradients are told apart by their share of the FLOPs.

    Example:
        >>> TimeSpent(seconds={"forward": 1.5, "data": 0.25}).seconds["data"]
        0.25
    """

    kind: ClassVar[str] = "time_spent"

    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ScoresMeasured(Event):
    """What the user's module logged at the end of a validation.

    Args:
        scores: metric → value, as logged.

    Example:
        >>> ScoresMeasured(scores={"val/accuracy": 0.5}).scores["val/accuracy"]
        0.5
    """

    kind: ClassVar[str] = "scores_measured"

    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class AttentionMeasured(Event):
    """What the attention heads of each layer do, on one batch.

    Args:
        entropy: layer → per head, entropy of the attention over log of visible keys, in [0, 1].
        importance: layer → per head, share of the layer's ℓ2 norm of E|⟨o_h, ∂L/∂o_h⟩|, in [0, 1];
            empty for layers without gradient.

    Example:
        >>> seen = AttentionMeasured(entropy={"layer.0": (0.8, 0.3)}, importance={})
        >>> seen.entropy["layer.0"][1]
        0.3
    """

    kind: ClassVar[str] = "attention_measured"

    entropy: Mapping[str, tuple[float, ...]]
    importance: Mapping[str, tuple[float, ...]]

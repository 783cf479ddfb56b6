"""Views on Lightning's loggers, found by the name of the logger's class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from typing_extensions import override

from lightning_attnbal.tracking.views._view import Content, Frame, View


class Logger(Protocol):
    """The part of Lightning's loggers that every view uses."""

    @property
    def experiment(self) -> Any:
        """What the logger writes to: a W&B run, a SummaryWriter, an MLflow client."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write numbers at a step."""


class LoggerView(View):
    """Scalars in any logger of Lightning's, at the optimizer step they belong to.

    Args:
        logger: of the Trainer.

    Example:
        >>> class Printer:
        ...     def log_metrics(self, metrics, step=None):
        ...         print(step, metrics)
        >>> LoggerView(Printer())(Frame(step=3, epoch=0, scalars={"attnbal/budget/spent": 2.0}))
        3 {'attnbal/budget/spent': 2.0}
    """

    shows = frozenset({Content.SCALARS})

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    @property
    @override
    def name(self) -> str:
        """The logger's class."""
        return type(self.logger).__name__

    @override
    def show(self, frame: Frame) -> None:
        if frame.scalars:
            self.logger.log_metrics(frame.scalars, frame.step)


_VIEWS: dict[str, Callable[[Any], View]] = {}


def register_view(logger: str, view: Callable[[Any], View]) -> None:
    """Say how loggers of the class named `logger`, and its subclasses, show a run.

    Example:
        >>> register_view("NeptuneLogger", LoggerView)
    """
    _VIEWS[logger] = view


def views_for(loggers: Iterable[Any]) -> list[View]:
    """A view for each logger: that of its class, or of the nearest base that has one.

    Classes are told apart by name, so that no logger's package is imported for it. A logger nobody
    registered a view for shows scalars.

    Example:
        >>> class OurLogger:
        ...     def log_metrics(self, metrics, step=None): ...
        >>> (view,) = views_for([OurLogger()])
        >>> view.name, view.gaps
        ('OurLogger', ('figures', 'tables', 'reasons'))
    """
    return [_view_class(type(logger))(logger) for logger in loggers]


def _view_class(logger: type) -> Callable[[Any], View]:
    names = (base.__name__ for base in logger.__mro__)
    return next((_VIEWS[name] for name in names if name in _VIEWS), LoggerView)

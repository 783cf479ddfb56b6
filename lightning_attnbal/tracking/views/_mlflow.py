"""A run in MLflow."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from typing_extensions import override

from lightning_attnbal.tracking.views._loggers import LoggerView
from lightning_attnbal.tracking.views._view import Content, Frame

_FOLDER = "attnbal"
_REFUSED = re.compile(r"[^\w/. -]", re.ASCII)


class MLFlowView(LoggerView):
    """Scalars as metrics, figures as artifacts `attnbal/<step>/<name>.png` in MLflow.

    What MLflow refuses in the name of a metric becomes an underscore.

    Args:
        logger: an `MLFlowLogger`.
    """

    shows = frozenset({Content.SCALARS, Content.FIGURES})
    logger: Any

    @override
    def show(self, frame: Frame) -> None:
        scalars = {_REFUSED.sub("_", key): value for key, value in frame.scalars.items()}
        if scalars:
            self.logger.log_metrics(scalars, frame.step)
        if not frame.figures:
            return
        with TemporaryDirectory() as folder:
            for name, png in frame.figures.items():
                Path(folder, f"{name}.png").write_bytes(png)
            target = f"{_FOLDER}/{frame.step}"
            self.logger.experiment.log_artifacts(self.logger.run_id, folder, target)

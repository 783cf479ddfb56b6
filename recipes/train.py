"""Train any of the recipes: `python -m recipes.train experiment=text_balanced [key=value ...]`.

`conf/train.yaml` lists the keys, `--cfg job` shows what would run, `-m` runs several.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

import recipes.recommendation.config as recommendation
import recipes.text.config as text
import recipes.translation.config as translation
import recipes.vision.config as vision
from recipes._common.composing import CONF, explain, store_schema, typed
from recipes._common.config import TrainConfig
from recipes._common.running import Outcome, assemble, outcome_table, run
from recipes._fetch import FetchError

_CONFIGS = (recommendation, text, translation, vision)
TARGETS = frozenset(target for config in _CONFIGS for target in config.TARGETS)
"""What `_target_` may name."""

_ADVICE = (
    ".*does not have many workers",  # rows are in memory
    "Experiment logs directory",  # Hydra made it
    "The dirpath has changed",  # a run goes on in a folder of its own
    "The number of training batches",
    ".*LeafSpec",  # Lightning 2.6 on torch 2.14
)

store_schema()
for _config in _CONFIGS:
    _config.store(ConfigStore.instance())


def compose_run(overrides: Sequence[str]) -> TrainConfig:
    """What `python -m recipes.train` would run with these arguments.

    Raises:
        ValueError: a key or value is unknown, or one is missing; the allowed ones are named.
    """
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return typed(compose("train", list(overrides)))
    except (ConfigCompositionException, OmegaConfBaseException) as error:
        raise ValueError(explain(error)) from error


def train(config: TrainConfig, out: Path) -> Outcome:
    """Run what the configuration says and write what it leaves to `out`.

    Raises:
        FetchError: data or weights cannot be had.
        ValueError: a value is outside its range; nothing was trained.
    """
    # that the head is new and that no workers are used (rows are in memory) need not be said
    set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    disable_progress_bar()  # type: ignore[no-untyped-call]
    for advice in _ADVICE:
        warnings.filterwarnings("ignore", message=advice)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    return run(config, assemble(config, out, TARGETS), out)


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def _main(raw: DictConfig) -> float | None:
    config = typed(raw)
    out = Path(HydraConfig.get().runtime.output_dir)
    console = Console()
    console.print(f"{config.recipe}: {', '.join(config.data.tasks) or 'all tasks'}", style="bold")
    try:
        outcome = train(config, out)
    except FetchError as error:
        raise SystemExit(f"Error: {error}") from None
    console.print(outcome_table(outcome))
    console.print(f"Left in {out}: model/, results.json, report.html", soft_wrap=True)
    judged = outcome.judged.values()
    return sum(judged) / len(judged) if judged else None


def main() -> None:
    """Compose, run, report; a configuration that is refused is one message."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints and exits before we can say
    try:
        _main()
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"Error: {explain(error)}")


if __name__ == "__main__":
    main()

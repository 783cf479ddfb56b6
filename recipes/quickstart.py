"""Fine-tune an encoder on a budget, then train everything for fewer steps; compare.

Run `python -m recipes.quickstart [key=value ...]`; `conf/quickstart/` lists the keys.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import cast

import hydra
import lightning.pytorch as pl
from hydra.core.config_store import ConfigStore
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from omegaconf import MISSING, DictConfig, OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from lightning_attnbal import AttentionBalancer
from lightning_attnbal.allocate import FullAllocator
from lightning_attnbal.core import Budget, Quantity
from lightning_attnbal.tracking import build_timeline, plot_plan, print_summary
from lightning_attnbal.tracking.report import write_report
from recipes._common.composing import CONF
from recipes.text import (
    Corpus,
    ReviewsData,
    TextClassifier,
    load_csv,
    load_reviews,
    make_synthetic,
    packaged_encoder,
)

LEFT = ("model", "report.html", "plan.png", "balanced/attnbal.jsonl", "full/attnbal.jsonl")
"""What a run leaves in its folder."""


class LoggerName(StrEnum):
    """Where a run is shown, beside its own file."""

    csv = "csv"
    tensorboard = "tensorboard"
    wandb = "wandb"


class Source(StrEnum):
    """Where the texts come from."""

    reviews = "reviews"
    csv = "csv"
    synthetic = "synthetic"


@dataclass
class DataConfig:
    """Schema of `conf/quickstart/data`."""

    source: Source = MISSING
    path: str | None = MISSING
    text_column: str = "text"
    label_column: str = "label"
    num_train: int = MISSING
    num_val: int = MISSING
    num_test: int = MISSING
    max_tokens: int = MISSING
    batch_size: int = MISSING

    def loader(self) -> Callable[[], Corpus]:
        """The function that loads the texts."""
        rows = self.num_train + self.num_val + self.num_test
        loaders: dict[Source, Callable[[], Corpus]] = {
            Source.reviews: partial(load_reviews, self.label_column),
            Source.csv: partial(load_csv, str(self.path), self.text_column, self.label_column),
            Source.synthetic: partial(make_synthetic, rows),
        }
        return loaders[self.source]


@dataclass
class QuickstartConfig:
    """Schema of `conf/quickstart/quickstart.yaml`; a key that is not here is refused."""

    data: DataConfig = MISSING
    lr: float = MISSING
    encoder: str | None = MISSING
    budget: str = MISSING
    control_budget: str | None = MISSING
    max_epochs: int = MISSING
    seed: int = MISSING
    out_dir: str = MISSING
    loggers: list[LoggerName] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run cost and reached.

    Args:
        name: of the run.
        allowed: its budget, in FLOPs or seconds.
        planned: what its plans predicted, in the same dimension.
        spent: what it spent, in the same dimension.
        seconds: wall-clock time of the fit, validation included.
        accuracy: on the test rows, in [0, 1].
        macro_f1: on the test rows, in [0, 1].
    """

    name: str
    allowed: str
    planned: str
    spent: str
    seconds: float
    accuracy: float
    macro_f1: float


def typed(raw: DictConfig) -> QuickstartConfig:
    """The composed configuration as a typed object.

    Raises:
        ValueError: a value that has no default was not given.
    """
    missing = sorted(OmegaConf.missing_keys(raw))
    if missing:
        msg = f"Expected `{missing[0]}` to be given, as in `{missing[0]}=...`, but it is missing."
        raise ValueError(msg)
    return cast(QuickstartConfig, OmegaConf.to_object(raw))


def compare(config: QuickstartConfig, console: Console) -> list[Outcome]:
    """Run both arms on the same data and seed, and write what they leave to `out_dir`."""
    out = Path(config.out_dir)
    data = ReviewsData(
        config.encoder or packaged_encoder(),
        config.data.num_train,
        num_val=config.data.num_val,
        num_test=config.data.num_test,
        max_tokens=config.data.max_tokens,
        batch_size=config.data.batch_size,
        seed=config.seed,
        load=config.data.loader(),
    )
    data.setup()
    balanced = AttentionBalancer(budget=config.budget, seed=config.seed)
    console.rule(f"balanced: {balanced.budget}")
    module, first = run_arm("balanced", config, data, balanced)
    module.save_pretrained(out / "model")
    data.tokenizer.save_pretrained(out / "model")
    plot_plan(balanced.events, out / "plan.png")
    print_summary(balanced.events, console)

    allowed = config.control_budget or _same_cost(balanced)
    control = AttentionBalancer(budget=allowed, allocator=FullAllocator(), seed=config.seed)
    console.rule(f"everything trained, for fewer steps: {control.budget}")
    _, second = run_arm("full", config, data, control)
    write_report({"balanced": balanced.events, "full": control.events}, out / "report.html")
    outcomes = [first, second]
    (out / "results.json").write_text(json.dumps([asdict(o) for o in outcomes], indent=2) + "\n")
    return outcomes


def run_arm(
    name: str,
    config: QuickstartConfig,
    data: ReviewsData,
    balancer: AttentionBalancer,
) -> tuple[TextClassifier, Outcome]:
    """Fit and test a fresh model with the balancer; events go to `out_dir/<name>/attnbal.jsonl`."""
    pl.seed_everything(config.seed, verbose=False)
    module = TextClassifier(config.encoder or packaged_encoder(), len(data.class_names), config.lr)
    loggers = make_loggers(config.loggers, Path(config.out_dir) / name)
    trainer = pl.Trainer(
        max_epochs=config.max_epochs,
        callbacks=[balancer],
        devices=1,
        default_root_dir=Path(config.out_dir) / name,
        logger=loggers,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=5,
    )
    trainer.fit(module, datamodule=data)
    scores = trainer.test(module, datamodule=data, verbose=False)[0]
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # else the next run would go on in this one
    planned = Quantity(build_timeline(balancer.events).planned, balancer.spent.dimension)
    return module, Outcome(
        name=name,
        allowed=str(balancer.limit),
        planned=str(planned),
        spent=str(balancer.spent),
        seconds=balancer.seconds.amount,
        accuracy=scores["test/accuracy"],
        macro_f1=scores["test/macro_f1"],
    )


def make_loggers(names: Sequence[LoggerName], folder: Path) -> list[Logger]:
    """Lightning's loggers, each in the folder of the run.

    W&B goes online, offline or nowhere as WANDB_MODE says.
    """
    makers: dict[LoggerName, Callable[[], Logger]] = {
        LoggerName.csv: lambda: CSVLogger(folder, name="", version=""),
        LoggerName.tensorboard: lambda: TensorBoardLogger(folder, name="", version=""),
        LoggerName.wandb: lambda: WandbLogger(
            name=folder.name, save_dir=folder, project="attnbal-quickstart"
        ),
    }
    return [makers[name]() for name in dict.fromkeys(names)]


def _same_cost(balancer: AttentionBalancer) -> Budget:
    """The budget the first run was allowed, in absolute terms."""
    if balancer.limit is None:
        msg = "The first run ended before its budget was known; it has no cost to compare with."
        raise RuntimeError(msg)
    return Budget(balancer.limit)


def outcome_table(outcomes: list[Outcome]) -> Table:
    """One row per run."""
    title = "What each run cost and reached"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("run", "allowed", "planned", "spent", "time", "accuracy", "macro-F1"):
        table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=True)
    for o in outcomes:
        scores = (f"{o.seconds:.0f} s", f"{o.accuracy:.3f}", f"{o.macro_f1:.3f}")
        table.add_row(o.name, o.allowed, o.planned, o.spent, *scores)
    return table


ConfigStore.instance().store(name="quickstart_schema", node=QuickstartConfig)


@hydra.main(
    config_path=str(CONF / "quickstart"),
    config_name="quickstart",
    version_base="1.3",
)
def main(raw: DictConfig) -> None:
    """Compose, run, report."""
    config = typed(raw)
    # that the head is new and that no workers are used (texts are in memory) need not be said
    set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    console = Console()
    outcomes = compare(config, console)
    console.print(outcome_table(outcomes))
    out = Path(config.out_dir).resolve()
    console.print("The balanced run left", highlight=False)
    for what in LEFT:
        console.print(f"  {out / what}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()

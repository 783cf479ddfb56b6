"""The schema of a run: a key or value that is not here is refused when a run is composed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING


class Source(StrEnum):
    """Where the data comes from."""

    embedded = "embedded"
    hub = "hub"
    files = "files"
    synthetic = "synthetic"


class Trained(StrEnum):
    """Which parameters may train at all."""

    all = "all"
    attention = "attention"
    lora = "lora"


class AllocatorName(StrEnum):
    """Who decides about plans."""

    forecast = "forecast"
    full = "full"


class LevelName(StrEnum):
    """What a unit may get."""

    cached = "cached"
    frozen = "frozen"
    full = "full"
    detached = "detached"
    local = "local"


class LoggerName(StrEnum):
    """Where a run is shown, beside its own file."""

    csv = "csv"
    tensorboard = "tensorboard"
    wandb = "wandb"


class Objective(StrEnum):
    """What counts of several tasks."""

    sum = "sum"
    worst = "worst"


class Parallel(StrEnum):
    """How several tasks share a step."""

    auto = "auto"
    off = "off"
    heads = "heads"
    ranks = "ranks"


class ScheduleName(StrEnum):
    """How the learning rate falls until the budget ends."""

    linear = "linear"
    cosine = "cosine"
    rex = "rex"


class Accelerator(StrEnum):
    """Lightning's names of devices."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    cuda = "cuda"
    mps = "mps"
    tpu = "tpu"


Precision = StrEnum(
    "Precision",
    {
        "32-true": "32-true",
        "bf16-mixed": "bf16-mixed",
        "16-mixed": "16-mixed",
        "bf16-true": "bf16-true",
        "64-true": "64-true",
    },
)
"""Lightning's names of number formats."""


@dataclass
class DataConfig:
    """Schema of `conf/data`; each recipe adds keys of its own.

    Args:
        source: "embedded": what works wherever packages can be installed; "hub": the field's usual
            source, under `name`; "files": one's own, at `path`; "synthetic": made up, for tests.
        name: of a set, for `source=hub`.
        path: of a file or folder, for `source=files`.
        tasks: which of the recipe's tasks are trained, one or several.
        num_train: training rows of each task at most, in [1, inf); None: all.
        num_val: validation rows of each task at most, in [1, inf).
        num_test: test rows of each task at most, in [1, inf); None: all.
        batch_size: rows per batch, in [1, inf).
        num_workers: processes that load, in [0, inf).
        pin_memory: whether batches are put where a GPU can fetch them.
        seed: order of the training batches.
    """

    _target_: str = MISSING
    source: Source = Source.embedded
    name: str | None = None
    path: str | None = None
    tasks: list[str] = field(default_factory=list)
    num_train: int | None = None
    num_val: int = 500
    num_test: int | None = None
    batch_size: int = 32
    num_workers: int = 0
    pin_memory: bool = False
    seed: int = 0


@dataclass
class ModelConfig:
    """Schema of `conf/model`; each model adds keys of its own.

    Args:
        lr: peak learning rate of full training, in (0, inf).
        weight_decay: decoupled weight decay, in [0, inf).
    """

    _target_: str = MISSING
    lr: float = MISSING
    weight_decay: float = 0.01


@dataclass
class BalancerConfig:
    """Schema of `conf/balancer`.

    Args:
        enabled: whether a budget is kept at all.
        levels: what a unit may get.
        allocator: who decides about plans.
        tasks: whether tasks take turns, in shares decided along with their plans; else each step
            has a batch of every task.
        parallel: how tasks share a step: "heads", all of them on one forward, where they ask about
            the same samples; "ranks", one each; "off", one a step; "auto": ranks on several
            processes, else heads where that can be, else one a step.
        objective: of several tasks, "sum" of the gains or the "worst".
        reach: a task's share is its share of the data times at most this, or divided by it.
        epoch_batches: batches after which is decided anew; None: a pass over the data.
        train: which parameters may train at all.
        lora_rank: r of the adapters, in [1, inf).
        warmup: share of the budget over which the learning rate rises, in [0, 1).
        lr_schedule: how the learning rate falls until the budget ends.
        memory: such as "6GiB"; None: no limit.
    """

    enabled: bool = True
    levels: list[LevelName] = field(
        default_factory=lambda: [LevelName.cached, LevelName.frozen, LevelName.full]
    )
    allocator: AllocatorName = AllocatorName.forecast
    tasks: bool = False
    parallel: Parallel = Parallel.auto
    objective: Objective = Objective.sum
    reach: float = 2.0
    epoch_batches: int | None = None
    train: Trained = Trained.all
    lora_rank: int = 8
    warmup: float = 0.1
    lr_schedule: ScheduleName = ScheduleName.linear
    memory: str | None = None


@dataclass
class CallbacksConfig:
    """Schema of `conf/callbacks`.

    Args:
        checkpoint: whether `checkpoints/last.ckpt` is kept, to resume from by `ckpt_path`.
        progress_bar: whether there is one.
        summary: whether the layers are listed first.
    """

    checkpoint: bool = True
    progress_bar: bool = True
    summary: bool = False


@dataclass
class TrainerConfig:
    """Schema of `conf/trainer`: Lightning's own arguments.

    Args:
        threads: CPU threads; None: torch's default.
    """

    accelerator: Accelerator = MISSING
    devices: str = "auto"
    strategy: str = "auto"
    num_nodes: int = 1
    precision: Precision = Precision["32-true"]
    max_epochs: int = MISSING
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    log_every_n_steps: int = 10
    num_sanity_val_steps: int = 0
    deterministic: bool = False
    threads: int | None = None


@dataclass
class LoggerConfig:
    """Schema of `conf/logger`.

    Args:
        project: W&B's; None for the others.
    """

    project: str | None = None


@dataclass
class PathsConfig:
    """Schema of `conf/paths`."""

    out_dir: str = MISSING


@dataclass
class TrainConfig:
    """Schema of `conf/train.yaml`.

    Args:
        recipe: translation, image, recommendation or text.
        budget: what the run may cost: a share of the full run's FLOPs, "2 PFLOP" or "3min".
        seed: of weights, dropout and order of the batches, in [0, inf).
        ckpt_path: checkpoint to go on from; None: start afresh.
        baselines: whether trivial baselines are scored as well.
        test: whether the test rows are scored at the end.
    """

    recipe: str = MISSING
    data: DataConfig = MISSING
    model: ModelConfig = MISSING
    balancer: BalancerConfig = field(default_factory=BalancerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    logger: dict[LoggerName, LoggerConfig] = field(default_factory=dict)
    budget: str = MISSING
    seed: int = 0
    ckpt_path: str | None = None
    baselines: bool = False
    test: bool = True

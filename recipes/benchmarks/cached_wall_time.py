"""What reading a cached prefix saves in wall time.

`python -m recipes.benchmarks.cached_wall_time [--quick]`: a stack of 12 pre-norm blocks with 6 and
9 of them cached; MiniLM on customer reviews with all but its top layer and head cached; ResNet-18
with stem and two of four stages cached. A step is forward, backward and AdamW. Every arm has a
model of its own, and its rows are stored before anything is timed. Rounds are interleaved: each
round takes one step of every arm on the same batch, in random order, and ratios are taken within a
round, so that a slow spell of the machine hits all arms alike. Figures are medians: the audit of
one call in 100 (a pass of the prefix, and one of the host) is not in them.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lightning_attnbal.apply import PlanApplier
from lightning_attnbal.apply.cache import ActivationStore, PrefixCache
from lightning_attnbal.core import Plan, Unit
from lightning_attnbal.measure import UnitTracer, discover_units, flop_counter, order_units
from recipes.benchmarks._common import RESULTS, write_record
from recipes.benchmarks.freeze_wall_time import Encoder, pre_norm

RESULT = RESULTS / "cached_wall_time.json"
TARGET_ABOVE_FLOPS = 1.08  # wall over FLOP share, where a step takes at least LONG_STEP
LONG_STEP = 0.05
FILL_EPOCHS = 4


@dataclass(frozen=True, slots=True)
class Arm:
    """How many of the lowest units are cached, and the largest share of a full step it may take."""

    name: str
    cached: int
    target: float | None = None


@dataclass(frozen=True)
class Case:
    """A model to train.

    Args:
        name: of the case.
        build: makes the model, the same each time.
        batches: one epoch.
        loss: scalar loss on a batch.
        arms: what is cached; the first arm trains everything.
    """

    name: str
    build: Callable[[], nn.Module]
    batches: Sequence[Any]
    loss: Callable[[nn.Module, Any], Tensor]
    arms: tuple[Arm, ...]


def stack() -> Case:
    """12 pre-norm blocks, width 256, batch 16 of 128 tokens."""

    def build() -> nn.Module:
        torch.manual_seed(0)
        return Encoder([pre_norm() for _ in range(12)])

    generator = torch.Generator().manual_seed(0)
    batches = torch.randn(64, 128, 256, generator=generator).split(16)
    arms = (Arm("full", 0), Arm("6 cached", 6, 0.53), Arm("9 cached", 9, 0.28))
    return Case("pre-norm", build, batches, lambda m, x: m(x).square().mean(), arms)


def minilm() -> Case:
    """The packaged MiniLM on reviews, batch 32, padded to the longest of the batch."""
    from transformers import AutoTokenizer

    from recipes.text import TextClassifier, load_reviews, packaged_encoder

    corpus = load_reviews()
    tokenizer = AutoTokenizer.from_pretrained(str(packaged_encoder()))
    batches = []
    for start in range(0, 256, 32):
        chosen = slice(start, start + 32)
        texts = tokenizer(
            list(corpus.texts[chosen]),
            padding=True,
            truncation=True,
            max_length=128,
            return_tensors="pt",
        )
        labels = torch.from_numpy(corpus.labels[chosen])
        batches.append((texts["input_ids"], texts["attention_mask"], labels))

    def build() -> nn.Module:
        torch.manual_seed(0)
        return TextClassifier(packaged_encoder(), len(corpus.class_names))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(*batch[:2]), batch[2])

    return Case("minilm", build, batches, loss, (Arm("full", 0), Arm("top 1 trained", -2, 0.16)))


def resnet18() -> Case:
    """Torchvision's ResNet-18, batch 16 of 128 pixels."""
    from torchvision.models import resnet18 as net

    def build() -> nn.Module:
        torch.manual_seed(0)
        return net(num_classes=10).to(memory_format=torch.contiguous_format)

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 128, 128, generator=generator).split(16)
    labels = torch.arange(16) % 10

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(batch), labels)

    # units are the stem, two blocks per stage, and the head
    return Case("resnet18", build, images, loss, (Arm("full", 0), Arm("2 stages cached", 5)))


CASES: Mapping[str, Callable[[], Case]] = {"stack": stack, "minilm": minilm, "resnet18": resnet18}


class Run:
    """One arm of a case in training.

    Args:
        case: what is trained.
        arm: what of it is cached.
    """

    def __init__(self, case: Case, arm: Arm) -> None:
        self.case, self.arm = case, arm
        self.model = case.build().train()
        units = self._units()
        self._names = [unit.name for unit in units]
        self._store = ActivationStore(ram="2GiB")
        self.cache = PrefixCache(self.model, units, self._store)
        self._applier = PlanApplier(self.model, units, cache=self.cache)
        self._applier.apply(Plan(dict(zip(self._names, self._levels(), strict=True))))
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def _levels(self) -> list[str]:
        number = len(self._names)
        cached = range(number)[: self.arm.cached] if self.arm.cached else range(0)
        return ["cached" if i in cached else "full" for i in range(number)]

    def _units(self) -> tuple[Unit, ...]:
        units = discover_units(self.model)
        with UnitTracer(self.model, units) as tracer:
            trace = tracer.stop(self.case.loss(self.model, self.case.batches[0]))
        return tuple(order_units(units, trace.calls))

    def step(self, batch: Any) -> float:
        """Seconds of one training step."""
        start = time.perf_counter()
        self.cache.begin_step()
        loss = self.case.loss(self.model, batch)
        self.cache.end_forward(loss)
        loss.backward()
        self.cache.end_backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return time.perf_counter() - start

    def fill(self) -> None:
        """Train until every row is stored and has been compared."""
        for _ in range(FILL_EPOCHS if self.arm.cached else 1):
            self.cache.begin_epoch()
            for batch in random.sample(self.case.batches, len(self.case.batches)):
                self.step(batch)
        if self.cache.refused:
            raise RuntimeError(str(self.cache.refused))

    def flops(self) -> int:
        """FLOPs of a step on the first batch."""
        with flop_counter() as counter:
            self.step(self.case.batches[0])
        return counter.get_total_flops()

    def close(self) -> None:
        """Give the rows' memory back."""
        self._applier.undo()
        self._store.close()


def measure(case: Case, num_rounds: int) -> dict[str, Any]:
    """Per arm, medians of seconds and of the ratio to a full step of the same round."""
    runs = [Run(case, arm) for arm in case.arms]
    for run in runs:
        run.fill()
    rounds = []
    for i in range(num_rounds):
        batch, seconds = case.batches[i % len(case.batches)], {}
        for run in random.sample(runs, len(runs)):
            run.step(batch)  # a model that was not in use is slow for a step
            seconds[run.arm.name] = run.step(batch)
            if run.arm.cached and run.cache.computed_share > 0:
                seconds[run.arm.name] = math.nan  # an audit
        rounds.append(seconds)
    flops = {run.arm.name: run.flops() for run in runs}
    result = {run.arm.name: _summary(run, rounds, flops) for run in runs}
    for run in runs:
        run.close()
    return result


def _summary(
    run: Run, rounds: Sequence[Mapping[str, float]], flops: Mapping[str, int]
) -> dict[str, Any]:
    name, full = run.arm.name, run.case.arms[0].name
    usual = [seconds for seconds in rounds if not math.isnan(seconds[name])]
    ratios = [seconds[name] / seconds[full] for seconds in usual]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    seconds, share = statistics.median(s[name] for s in usual), flops[name] / flops[full]
    limit = TARGET_ABOVE_FLOPS * share if seconds >= LONG_STEP else None
    limits = [x for x in (run.arm.target, limit) if x is not None]
    return {
        "seconds": seconds,
        "relative": middle,
        "quartile_low": low,
        "quartile_high": high,
        "flop_share": share,
        "wall_over_flops": middle / share,
        "target": run.arm.target,
        "is_met": middle <= min(limits, default=1.0) or not run.arm.cached,
        "hit_rate": run.cache.counts.hit_rate,
    }


def show(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """A table in the terminal."""
    columns = ("s / step", "wall", "quartiles", "FLOP share", "wall / FLOPs", "target", "met")
    table = Table("model", "arm", *columns)
    for model, arms in results.items():
        for name, arm in arms.items():
            table.add_row(
                model,
                name,
                f"{arm['seconds']:.3f}",
                f"{arm['relative']:.3f}",
                f"{arm['quartile_low']:.3f} – {arm['quartile_high']:.3f}",
                f"{arm['flop_share']:.3f}",
                f"{arm['wall_over_flops']:.2f}",
                f"≤ {arm['target']:.2f}" if arm["target"] else "",
                "yes" if arm["is_met"] else "no",
            )
    Console().print(table)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 rounds instead of 24")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=RESULT, help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    num_rounds = 5 if options.quick else 24
    results = {name: measure(CASES[name](), num_rounds) for name in options.cases}
    write_record(options.out, {"num_rounds": num_rounds, "results": results})
    show(results)


if __name__ == "__main__":
    main()

"""How well the step-time model predicts real steps.

`python -m recipes.benchmarks.step_time [--quick]`: two families, random plans (frozen or full per
unit: deep prefixes and scattered). The units are timed once by replay; a few plans calibrate the
model; the others are predicted and then compared with real steps. All plans run interleaved, round
after round, and a step's time is the fastest of the rounds, as other processes only add to it.
Prints a table, writes JSON.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lightning_attnbal.core import FROZEN, FULL, Level, UnitLoad
from lightning_attnbal.measure import StepTimeModel, plan_cost, profile
from recipes.benchmarks._common import RESULTS, write_record


@dataclass(frozen=True)
class Case:
    """A model, its batch and its loss."""

    name: str
    model: nn.Module
    batch: dict[str, Any]
    loss: Callable[[nn.Module, dict[str, Any]], Tensor]


def bert(*, quick: bool) -> Case:
    """A BERT-like encoder: 6 layers of width 384, batch 32 of 64 tokens; quick: 3 layers, 8."""
    from transformers import BertConfig, BertForSequenceClassification

    size = {"num_hidden_layers": 3 if quick else 6, "hidden_size": 384, "intermediate_size": 1536}
    model = BertForSequenceClassification(BertConfig(num_attention_heads=12, **size)).train()
    batch_size = 8 if quick else 32
    batch = {
        "input_ids": torch.randint(1000, 30000, (batch_size, 64)),
        "attention_mask": torch.ones(batch_size, 64, dtype=torch.long),
        "labels": torch.zeros(batch_size, dtype=torch.long),
    }
    return Case("bert", model, batch, lambda m, b: m(**b).loss)


def resnet18(*, quick: bool) -> Case:
    """Torchvision's ResNet-18, 64 pixels, batch 16 (quick: batch 8)."""
    from torchvision.models import resnet18 as build

    images = torch.randn(8 if quick else 16, 3, 64, 64)
    targets = torch.zeros(len(images), dtype=torch.long)
    batch = {"x": images}

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return nn.functional.cross_entropy(model(**batch), targets)

    return Case("resnet18", build(num_classes=10).train(), batch, loss)


def random_plans(num_units: int, count: int, seed: int) -> list[tuple[Level, ...]]:
    """Distinct plans: full, frozen prefixes of random depth, scattered ones; the head trains."""
    generator = random.Random(seed)
    plans: dict[tuple[Level, ...], None] = {(FULL,) * num_units: None}
    prefixes = [(FROZEN,) * k + (FULL,) * (num_units - k) for k in range(1, num_units)]
    plans.update(dict.fromkeys(generator.sample(prefixes, min(count // 2, len(prefixes)))))
    while len(plans) < count:
        plans[(*generator.choices((FROZEN, FULL), k=num_units - 1), FULL)] = None
    chosen = list(plans)
    generator.shuffle(chosen)
    return chosen


def step_seconds(case: Case, optimizer: torch.optim.Optimizer, trained: set[str]) -> float:
    """Seconds of one real training step in which exactly the parameters `trained` move."""
    for name, parameter in case.model.named_parameters():
        parameter.requires_grad_(name in trained)
    optimizer.zero_grad(set_to_none=True)
    start = time.perf_counter()
    case.loss(case.model, case.batch).backward()
    optimizer.step()
    return time.perf_counter() - start


def measure_plans(
    case: Case, loads: Sequence[UnitLoad], plans: Sequence[Sequence[Level]], rounds: int
) -> list[list[float]]:
    """Seconds of real steps, a list per plan: interleaved rounds, the first one dropped."""
    optimizer = torch.optim.AdamW(case.model.parameters(), lr=1e-5)
    times: list[list[float]] = [[] for _ in plans]
    for _ in range(1 + rounds):
        for plan, seen in zip(plans, times, strict=True):
            trained = {
                name
                for load, level in zip(loads, plan, strict=True)
                if level.is_trained
                for name in load.unit.parameters
            }
            seen.append(step_seconds(case, optimizer, trained))
    return [seen[1:] for seen in times]


def evaluate(case: Case, num_plans: int, num_fit: int, rounds: int) -> dict[str, Any]:
    """Errors of the prediction on plans that were not used to calibrate it."""
    optimizer = torch.optim.AdamW(case.model.parameters(), lr=1e-5)
    report = profile(case.model, case.batch, forward=case.loss, optimizer=optimizer, repeats=rounds)
    plans = random_plans(len(report.loads), num_fit + num_plans, seed=0)
    times = measure_plans(case, report.loads, plans, rounds)
    seconds = [min(seen) for seen in times]
    halves = [abs(min(seen[::2]) / min(seen[1::2]) - 1) for seen in times]
    observed = list(zip(plans, seconds, strict=True))
    prior = StepTimeModel(report.loads)
    model = prior.fit(observed[:num_fit])
    by_flops = _flop_model(report.loads).fit(observed[:num_fit])
    held_out = observed[num_fit:]
    return {
        "family": case.name,
        "num_fit": num_fit,
        "num_plans": len(held_out),
        "rounds": rounds,
        "repeatability": statistics.median(halves),
        "seconds": {"min": min(seconds), "max": max(seconds)},
        "coefficients": [*model.coefficients, model.constant],
        "errors": {
            "calibrated": _errors(model, held_out),
            "parts only": _errors(prior, held_out),
            "FLOPs, calibrated": _errors(by_flops, held_out),
        },
        "plans": [
            {
                "levels": [str(level) for level in plan],
                "seconds": measured,
                "predicted": model.predict(plan),
                "flops": plan_cost(report.loads, plan),
            }
            for plan, measured in held_out
        ],
    }


def _flop_model(loads: Sequence[UnitLoad]) -> StepTimeModel:
    """The same model with FLOPs for seconds: what counting alone can do."""
    return StepTimeModel(tuple(replace(load, seconds=load.flops) for load in loads))


def _errors(
    model: StepTimeModel, observed: Sequence[tuple[Sequence[Level], float]]
) -> dict[str, float]:
    """Median, 90 % and worst |error| relative to the measured seconds."""
    errors = sorted(abs(model.predict(plan) / seconds - 1) for plan, seconds in observed)
    return {
        "median": statistics.median(errors),
        "p90": errors[min(len(errors) - 1, round(0.9 * (len(errors) - 1)))],
        "max": errors[-1],
    }


def show(results: Sequence[dict[str, Any]]) -> None:
    """Print the errors as a table."""
    table = Table(title="Step time under random plans: |predicted / measured - 1|")
    for column in ("family", "model", "median", "90 %", "worst"):
        table.add_column(column, justify="left" if column in {"family", "model"} else "right")
    for result in results:
        for name, error in result["errors"].items():
            cells = (f"{error[key]:.1%}" for key in ("median", "p90", "max"))
            table.add_row(result["family"], name, *cells)
        noise = f"{result['repeatability']:.1%}"
        table.add_row(result["family"], "the same steps, other rounds", noise, "", "")
    Console().print(table)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller models and fewer plans")
    parser.add_argument("--threads", type=int, default=1, help="torch threads, pinned")
    parser.add_argument("--out", type=Path, default=RESULTS / "step_time.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    num_plans, num_fit, rounds = (6, 4, 2) if options.quick else (24, 8, 6)
    results = [
        evaluate(build(quick=options.quick), num_plans, num_fit, rounds)
        for build in (bert, resnet18)
    ]
    show(results)
    write_record(options.out, {"quick": options.quick, "results": results})


if __name__ == "__main__":
    main()

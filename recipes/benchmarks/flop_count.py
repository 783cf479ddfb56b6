"""Counted FLOPs against torch's count of the same real step.

`python -m recipes.benchmarks.flop_count [--quick]`: the tiny models of `tests/families.py` under
plans that freeze none, a third, two thirds and all but the top, and under scattered ones. Prints a
table, writes JSON.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lightning_attnbal.core import FROZEN, FULL, Level, Unit
from lightning_attnbal.measure import flop_counter, plan_cost, profile
from recipes.benchmarks._common import RESULTS, write_record
from tests.families import FAMILIES, Family


def plans(units: list[Unit], trainable: set[str], *, quick: bool) -> dict[str, list[Level]]:
    """Named plans; a unit that has nothing to train stays frozen in all of them."""
    count = len(units)
    generator = random.Random(0)
    wanted = {
        f"lowest {depth} of {count} frozen": [FROZEN] * depth + [FULL] * (count - depth)
        for depth in dict.fromkeys((0, count // 3, 2 * count // 3, count - 1))
    }
    for number in range(1 if quick else 3):
        levels = generator.choices((FROZEN, FULL), k=count - 1)
        wanted[f"scattered {number}"] = [*levels, FULL]
    can_train = [bool(trainable & set(unit.parameters)) for unit in units]
    return {
        name: [level if can else FROZEN for level, can in zip(levels, can_train, strict=True)]
        for name, levels in wanted.items()
    }


def real_flops(family: Family, model: torch.nn.Module, trained: set[str]) -> int:
    """FLOPs of one real step in which exactly the parameters `trained` need a gradient."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    with flop_counter() as counter:
        family.loss(model, family.batch()).backward()
    return counter.get_total_flops()


def evaluate(family: Family, *, quick: bool) -> dict[str, Any]:
    """Relative error per plan, and what the counting took."""
    model = family.build()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    start = time.perf_counter()
    report = profile(model, family.batch(), forward=family.loss, seconds=False)
    wall = time.perf_counter() - start
    units = [load.unit for load in report.loads]
    errors = {}
    for name, levels in plans(units, trainable, quick=quick).items():
        chosen = [unit for unit, level in zip(units, levels, strict=True) if level.is_trained]
        real = real_flops(family, model, {n for unit in chosen for n in unit.parameters})
        errors[name] = plan_cost(report.loads, levels, fixed=report.fixed.total) / real - 1
    return {"family": family.name, "units": len(units), "wall_seconds": wall, "errors": errors}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a third of the families")
    parser.add_argument("--out", type=Path, default=RESULTS / "flop_count.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    families = list(FAMILIES.values())[:: 3 if options.quick else 1]
    results = [evaluate(family, quick=options.quick) for family in families]
    table = Table(title="Counted against real FLOPs")
    for column in ("family", "units", "plans", "worst |error|", "profile s"):
        table.add_column(column, justify="left" if column == "family" else "right")
    for result in results:
        worst = max(map(abs, result["errors"].values()))
        counts = (str(result["units"]), str(len(result["errors"])))
        table.add_row(result["family"], *counts, f"{worst:.2%}", f"{result['wall_seconds']:.2f}")
    Console().print(table)
    write_record(options.out, {"results": results})


if __name__ == "__main__":
    main()

"""What freezing and detaching save in wall time: `python -m recipes.benchmarks.freeze_wall_time`.

Two stacks of 12 blocks (pre-norm `nn.TransformerEncoderLayer`, BERT), width 256, 4 heads, 128
tokens, batch 16, no dropout. A step is forward, backward and AdamW. Rounds are interleaved: each
round times every plan once, in random order, and ratios are taken within a round, so that a slow
spell of the machine hits all plans alike.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lightning_attnbal.apply import PlanApplier
from lightning_attnbal.core import Plan, Unit, UnitKind
from recipes.benchmarks._common import RESULTS, write_record

RESULT = RESULTS / "freeze_wall_time.json"
NUM_BLOCKS, WIDTH, HEADS = 12, 256, 4


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to train: level of each block, and the largest share of a full step it may take."""

    name: str
    levels: tuple[str, ...]
    target: float


ARMS = (
    Arm("full", ("full",) * NUM_BLOCKS, 1.0),
    Arm("freeze 6", ("frozen",) * 6 + ("full",) * 6, 0.70),
    Arm("freeze 9", ("frozen",) * 9 + ("full",) * 3, 0.53),
    Arm(
        "train 0 and 6, others detached",
        ("full", *["detached"] * 5, "full", *["detached"] * 5),
        0.50,
    ),
)


class Encoder(nn.Module):
    """A stack of blocks, each called with the hidden states, shape (B, N, D)."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states after the last block, shape (B, N, D)."""
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


def pre_norm() -> nn.Module:
    """One pre-norm transformer block."""
    return nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
    )


def bert() -> nn.Module:
    """One BERT block (post-norm)."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    size = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertLayer(BertConfig(**size, **dropout, attn_implementation="sdpa"))


MODELS: Mapping[str, Callable[[], nn.Module]] = {"pre-norm": pre_norm, "bert": bert}


def units_of(model: Encoder) -> list[Unit]:
    """One unit per block."""
    return [
        Unit(
            name=f"blocks.{i}",
            index=i,
            kind=UnitKind.BLOCK,
            modules=(f"blocks.{i}",),
            parameters=tuple(f"blocks.{i}.{name}" for name, _ in block.named_parameters()),
            num_parameters=sum(p.numel() for p in block.parameters()),
        )
        for i, block in enumerate(model.blocks)
    ]


@dataclass(frozen=True, slots=True)
class Seconds:
    """What one step took by the clock on the wall, and on the processor (blind to other load)."""

    wall: float
    cpu: float


def time_step(model: nn.Module, optimizer: torch.optim.Optimizer, hidden: Tensor) -> Seconds:
    """Time of one forward, backward and optimizer step."""
    wall, cpu = time.perf_counter(), time.process_time()
    model(hidden).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


Round = dict[str, Seconds]


def measure(block: Callable[[], nn.Module], num_rounds: int, shape: tuple[int, int]) -> list[Round]:
    """Per round, the time of a step of each arm."""
    model = Encoder([block() for _ in range(NUM_BLOCKS)]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    hidden = torch.randn(*shape, WIDTH)
    units = units_of(model)
    rounds: list[Round] = []
    with PlanApplier(model, units) as applier:
        for _ in range(num_rounds + 1):
            seconds = {}
            for arm in random.sample(ARMS, len(ARMS)):
                plan = Plan({u.name: level for u, level in zip(units, arm.levels, strict=True)})
                applier.apply(plan, [optimizer])
                time_step(model, optimizer, hidden)
                seconds[arm.name] = time_step(model, optimizer, hidden)
            rounds.append(seconds)
    return rounds[1:]  # the first one fills caches and optimizer state


def summary(rounds: list[Round]) -> dict[str, dict[str, float]]:
    """Median seconds, and median with quartiles of the ratio to a full step of the same round."""
    result = {}
    for arm in ARMS:
        ratios = [seconds[arm.name].wall / seconds["full"].wall for seconds in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        result[arm.name] = {
            "seconds": statistics.median(seconds[arm.name].wall for seconds in rounds),
            "relative": middle,
            "quartile_low": low,
            "quartile_high": high,
            "relative_cpu": statistics.median(
                seconds[arm.name].cpu / seconds["full"].cpu for seconds in rounds
            ),
            "target": arm.target,
        }
    return result


def show(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """A table in the terminal."""
    table = Table("model", "arm", "s / step", "wall", "quartiles", "cpu", "target", "met")
    for model, arms in results.items():
        for name, arm in arms.items():
            table.add_row(
                model,
                name,
                f"{arm['seconds']:.3f}",
                f"{arm['relative']:.3f}",
                f"{arm['quartile_low']:.3f} – {arm['quartile_high']:.3f}",
                f"{arm['relative_cpu']:.3f}",
                f"≤ {arm['target']:.2f}",
                "yes" if arm["relative"] <= arm["target"] else "no",
            )
    Console().print(table)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 rounds instead of 20")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    random.seed(0)
    num_rounds, shape = (5 if options.quick else 20), (16, 128)
    results = {name: summary(measure(block, num_rounds, shape)) for name, block in MODELS.items()}
    record = {
        "num_rounds": num_rounds,
        "shape": {"blocks": NUM_BLOCKS, "width": WIDTH, "batch": shape[0], "tokens": shape[1]},
        "results": results,
    }
    write_record(options.out, record)
    show(results)


if __name__ == "__main__":
    main()

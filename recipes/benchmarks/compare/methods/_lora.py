"""Low-rank adapters, by peft: LoRA, rsLoRA, DoRA, AdaLoRA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attnbal.core import Unit, check_choice, check_integer, check_number
from lightning_attnbal.measure import discover_units
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods._method import Method, blocks_of, heads_of
from recipes.benchmarks.compare.methods._optional import require

_KINDS = ("lora", "rslora", "dora", "adalora")
_ADAPTER = "default"
_VIRTUAL_STEPS = 1000  # the length of a run in AdaLoRA's schedule, whatever the run's own
_TUNER = "adalora_tuner"  # where `prepare` leaves it on the module, for the callback


@dataclass(frozen=True, kw_only=True)
class Lora(Method):
    """An adapter of rank `rank` on every linear layer of the blocks; the head trains in full.

    alpha / rank is 2, so the adapter is scaled by 2 (rsLoRA: by 2·√rank).

    Args:
        rank: of each adapter, in [1, inf); of AdaLoRA the average it ends with.
        kind: "lora", "rslora", "dora" or "adalora".
        initial_share: AdaLoRA: share of the budget before ranks are pruned, in [0, 1).
        final_share: AdaLoRA: share of the budget after the last pruning, in (0, 1 - initial_share).
        orthogonal_weight: AdaLoRA: of the regularisation, in [0, inf).

    Source:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022;
        Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023;
        Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024;
        Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning" (AdaLoRA),
        ICLR 2023.
    """

    rank: int = 16
    kind: Literal["lora", "rslora", "dora", "adalora"] = "lora"
    initial_share: float = 0.1
    final_share: float = 0.5
    orthogonal_weight: float = 0.5

    def __post_init__(self) -> None:
        check_integer("rank", self.rank, low=1)
        check_choice("kind", self.kind, _KINDS)
        check_number("initial_share", self.initial_share, low=0, high=1, high_open=True)
        high = 1 - self.initial_share
        limits = {"low_open": True, "high_open": True}
        check_number("final_share", self.final_share, low=0, high=high, **limits)
        check_number("orthogonal_weight", self.orthogonal_weight, low=0)

    @property
    @override
    def name(self) -> str:
        return f"{self.kind}-r{self.rank}"

    @property
    @override
    def default_lr_factor(self) -> float:
        """Ten: Hu et al. train adapters at ten times the rate of full training or more."""
        return 10.0

    @override
    def prepare(self, module: pl.LightningModule) -> None:
        """Inject the adapters; everything else but the head is frozen.

        Raises:
            ValueError: the blocks have no linear layer that is called.
        """
        peft = require("peft")
        units = discover_units(module)
        trainable = {id(p) for p in module.parameters() if p.requires_grad}
        targets = list(adaptable(module, units))
        if not targets:
            msg = "Expected the blocks to have linear layers, but found none."
            raise ValueError(msg)
        head = [dict(module.named_parameters())[n] for u in heads_of(units) for n in u.parameters]
        config = self._config(peft, targets)
        if self.kind == "adalora":
            tuner = peft.tuners.AdaLoraModel(module, {_ADAPTER: config}, _ADAPTER)
            module.__dict__[_TUNER] = tuner  # past nn.Module, which would make it a submodule
        else:
            peft.inject_adapter_in_model(config, module, _ADAPTER)
        for parameter in head:
            parameter.requires_grad_(id(parameter) in trainable)

    def _config(self, peft: Any, targets: list[str]) -> Any:
        if self.kind != "adalora":
            return peft.LoraConfig(
                r=self.rank,
                lora_alpha=2 * self.rank,
                target_modules=targets,
                use_rslora=self.kind == "rslora",
                use_dora=self.kind == "dora",
            )
        first = round(1.5 * self.rank)  # what the paper starts with
        return peft.AdaLoraConfig(
            init_r=first,
            target_r=self.rank,
            lora_alpha=2 * first,
            target_modules=targets,
            tinit=round(self.initial_share * _VIRTUAL_STEPS),
            tfinal=round(self.final_share * _VIRTUAL_STEPS),
            total_step=_VIRTUAL_STEPS,
            orth_reg_weight=self.orthogonal_weight,
        )

    @override
    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        return [_AdaptiveRanks(budget)] if self.kind == "adalora" else []


def adaptable(module: nn.Module, units: tuple[Unit, ...]) -> Iterator[str]:
    """Names of the linear layers of the blocks, without those inside `nn.MultiheadAttention`.

    The latter's weights are used without calling the layer, so an adapter on it would do nothing.
    """
    for unit in blocks_of(units):
        for root in unit.modules:
            block = module.get_submodule(root)
            hidden = {
                inner
                for outer in block.modules()
                if isinstance(outer, nn.MultiheadAttention)
                for inner in outer.modules()
            }
            for name, layer in block.named_modules(prefix=root):
                if isinstance(layer, nn.Linear) and layer not in hidden:
                    yield name


class _AdaptiveRanks(pl.Callback):
    """AdaLoRA's regularisation and pruning, paced by the share of the budget that is spent.

    peft counts steps of a run of known length; a budget's length in steps is not known, so it is
    told the share spent, in thousandths. The regularisation is part of the training step, so it is
    counted like everything in it.

    Hooks: `on_fit_start`, `on_train_batch_end`, `teardown`.
    """

    def __init__(self, budget: CountedBudget) -> None:
        self._budget = budget
        self._is_final = False

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._is_final = False
        original = pl_module.training_step
        weight = _config_of(pl_module).orth_reg_weight
        named = list(pl_module.named_parameters())
        lower = [p for name, p in named if "lora_A" in name]
        upper = [p for name, p in named if "lora_B" in name]

        @wraps(original)  # Lightning reads which arguments it takes
        def step(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            extra = weight * distance_to_orthogonal([*lower, *(p.T for p in upper)])
            if isinstance(output, Tensor):
                return output + extra
            return {**output, "loss": output["loss"] + extra}

        pl_module.__dict__["training_step"] = step

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        config, tuner = _config_of(pl_module), pl_module.__dict__[_TUNER]
        step = int(self._budget.progress * config.total_step)
        last = config.total_step - config.tfinal
        if step >= last and not self._is_final:
            step, self._is_final = last, True  # peft settles the ranks at exactly this step
        tuner.update_and_allocate(step)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl_module.__dict__.pop("training_step", None)


def distance_to_orthogonal(sides: list[Tensor]) -> Tensor:
    """Mean of the Frobenius norms of P Pᵀ - 1 over matrices P (r, width).

    Source:
        Zhang et al. (AdaLoRA), ICLR 2023, eq. 4, averaged over matrices as peft does.

    Example:
        >>> distance_to_orthogonal([torch.eye(2, 5)])
        tensor(0.)
    """
    norms = [torch.linalg.norm(p @ p.T - torch.eye(len(p)).to(p)) for p in sides]
    return torch.stack(norms).mean()


def _config_of(module: pl.LightningModule) -> Any:
    return module.__dict__[_TUNER].peft_config[_ADAPTER]

"""Which parameters of a model may train at all."""

from __future__ import annotations

import re

import lightning.pytorch as pl
from torch import nn

from lightning_attnbal.core import UnitKind
from lightning_attnbal.measure import discover_units
from recipes._common.config import Trained

_ATTENTION = re.compile(r"(^|[._])(\w*attn|\w*attention|sa|self_att\w*)([._]|$)", re.IGNORECASE)


def restrict(module: pl.LightningModule, trained: Trained, rank: int) -> None:
    """Freeze what may not train, or put adapters beside it; heads stay as they are.

    "attention" leaves attention and norms of the blocks, and what comes after the last block.
    "lora" freezes blocks and embeddings and puts adapters of rank r beside every linear layer of
    the blocks, by peft: W + 2 B A.

    Args:
        module: changed in place.
        trained: which parameters may train.
        rank: r, in [1, inf).

    Raises:
        ValueError: the model has no attention, or no linear layers in its blocks.

    Source: Hu et al., "LoRA", 2022.
    """
    if trained is Trained.all:
        return
    units = discover_units(module)
    blocks = [name for unit in units if unit.kind is UnitKind.BLOCK for name in unit.modules]
    for unit in units:
        if unit.kind is not UnitKind.HEAD:
            for name in unit.parameters:
                module.get_parameter(name).requires_grad_(False)
    is_attention = trained is Trained.attention
    if not (_attention(module, blocks) if is_attention else _lora(module, blocks, rank)):
        what = "attention" if is_attention else "linear layers"
        msg = (
            f"Expected a model with {what} in its blocks for `balancer.train={trained}`, but got "
            "none; train all of it with `balancer=multitask`."
        )
        raise ValueError(msg)


def _attention(module: nn.Module, blocks: list[str]) -> bool:
    found = False
    for block in blocks:
        for name, part in module.get_submodule(block).named_modules():
            is_attention = bool(_ATTENTION.search(name))
            found |= is_attention
            if is_attention or "norm" in type(part).__name__.lower():
                part.requires_grad_(True)
    return found


def _lora(module: nn.Module, blocks: list[str], rank: int) -> bool:
    import peft

    names = [
        f"{block}.{name}" if name else block
        for block in blocks
        for name, part in module.get_submodule(block).named_modules()
        if isinstance(part, nn.Linear)
    ]
    trains = {name for name, p in module.named_parameters() if p.requires_grad}
    if names:
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
        peft.inject_adapter_in_model(config, module)
    for name in trains:  # peft freezes everything else
        module.get_parameter(name).requires_grad_(True)
    return bool(names)


def merge_adapters(module: nn.Module) -> None:
    """Add each adapter's product to the weight beside it and take the adapter out."""
    import peft.tuners.lora as lora

    for name, part in list(module.named_modules()):
        if isinstance(part, lora.LoraLayer):
            part.merge()
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, part.get_base_layer())

"""Units of the tiny families, and small models made to probe one thing each."""

from __future__ import annotations

import torch
from torch import nn

from lightning_attnbal.core import Unit, UnitKind

WIDTH = 16

PRE_NORM = {
    "gpt2": "transformer.h.1",
    "llama": "model.layers.1",
    "t5": "encoder.block.1",
    "hf_vit": "vit.layers.1",
    "timm_vit": "blocks.1",
    "timm_convnext": "stages.2.blocks.1",
    "timm_swin": "layers.0.blocks.1",
    "tv_vit": "encoder.layers.encoder_layer_1",
    "tv_swin": "features.1.1",
}
"""Families whose skip path is a plain sum, so that its gradient is the identity."""

POST_NORM = {
    "bert": ("bert.encoder.layer.1", ("attention.output.LayerNorm", "output.LayerNorm")),
    "distilbert": (
        "distilbert.transformer.layer.1",
        ("sa_layer_norm", "output_layer_norm"),
    ),
    "marian": ("model.encoder.layers.1", ("self_attn_layer_norm", "final_layer_norm")),
    "bart": (
        "model.decoder.layers.1",
        ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
    ),
    "nn_transformer_encoder": ("layers.1", ("norm1", "norm2")),
    "nn_transformer_decoder": ("layers.1", ("norm1", "norm2", "norm3")),
    "nn_transformer": ("decoder.layers.1", ("norm1", "norm2", "norm3")),
}
"""Families whose skip path goes through norms, in forward order."""

RELU = {"tv_resnet18": "layer1.1", "timm_resnet": "layer2.1"}
"""Families whose skip path ends in a rectifier."""

BLOCKS = {**PRE_NORM, **{name: block for name, (block, _) in POST_NORM.items()}, **RELU}


def block_unit(model: nn.Module, name: str, index: int = 0) -> Unit:
    """The unit of one module, with all parameters in it."""
    inside = {n: p for n, p in model.named_parameters() if n.startswith(f"{name}.")}
    numbers = sum(p.numel() for p in inside.values())
    return Unit(name, index, UnitKind.BLOCK, (name,), tuple(inside), numbers)


def split(model: nn.Module, *blocks: str) -> list[Unit]:
    """A unit for each block, and one, `rest`, with all other parameters and no module."""
    units = [block_unit(model, name, index) for index, name in enumerate(blocks)]
    taken = {name for unit in units for name in unit.parameters}
    rest = {n: p for n, p in model.named_parameters() if n not in taken}
    numbers = sum(p.numel() for p in rest.values())
    return [*units, Unit("rest", len(units), UnitKind.OTHER, (), tuple(rest), numbers)]


class Residual(nn.Module):
    """y = x + dropout(batch norm(linear(x))), shape (B, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(self.norm(self.linear(x)))


def stack() -> nn.Sequential:
    """Three residual blocks and a head, in train mode, with fixed weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*(Residual() for _ in range(3)), nn.Linear(WIDTH, 2)).train()


def rows(num_rows: int = 8) -> torch.Tensor:
    """A batch for `stack`, shape (num_rows, D)."""
    return torch.randn(num_rows, WIDTH, generator=torch.Generator().manual_seed(1))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, *, set_to_none: bool = True) -> None:
    """One optimizer step on a fixed batch."""
    optimizer.zero_grad(set_to_none=set_to_none)
    model(rows()).square().mean().backward()
    optimizer.step()


def num_hooks(model: nn.Module) -> int:
    """Forward hooks of all kinds on all modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def moved(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    """Names of the parameters and buffers that differ by at least one bit."""
    return {n for n, tensor in model.state_dict().items() if not torch.equal(before[n], tensor)}


def direction_like(tensor: torch.Tensor) -> torch.Tensor:
    """A fixed random direction to send backward, of the shape of `tensor`."""
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2))

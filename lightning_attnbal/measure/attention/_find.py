"""Which modules may compute attention."""

from __future__ import annotations

from torch import nn

_NATIVE = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def find_attention(model: nn.Module) -> dict[str, nn.Module]:
    """Name → module that may call attention: `nn.MultiheadAttention`, or two projections or more.

    A module qualifies by its parts, not by its name: two direct children with a weight matrix.
    That finds feed-forward layers too, which then call no attention. torch's own layers in eval
    mode are left out, with what contains them: looked at, they would take another code path.

    Example:
        >>> layer = nn.TransformerEncoderLayer(8, 2, batch_first=True)
        >>> list(find_attention(nn.TransformerEncoder(layer, 2)))
        ['layers.0.self_attn', 'layers.1.self_attn']
        >>> list(find_attention(nn.TransformerEncoder(layer, 2).eval()))
        []
    """
    return {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.MultiheadAttention) and module.training) or _projects(module)
    }


def _projects(module: nn.Module) -> bool:
    weights = (getattr(child, "weight", None) for child in module.children())
    matrices = sum(getattr(weight, "ndim", 0) == 2 for weight in weights)
    return matrices > 1 and not any(isinstance(part, _NATIVE) for part in module.modules())

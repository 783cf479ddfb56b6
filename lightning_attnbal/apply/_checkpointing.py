"""Activation checkpointing that cannot live with frozen parts."""

from __future__ import annotations

from functools import partial

from torch import nn


def why_not_freezable(model: nn.Module) -> str | None:
    """Why freezing a part of `model` would go wrong, or None.

    Reentrant checkpoints compute no gradient for a block unless its *input* needs one: above a
    frozen prefix they leave trained blocks without gradients, silently, or, with an input that is
    made to need one, spend all that freezing saves. Hugging Face notes the setting on each layer.

    Example:
        >>> why_not_freezable(nn.Linear(2, 2)) is None
        True
    """
    for name, module in model.named_modules():
        function = getattr(module, "_gradient_checkpointing_func", None)
        is_reentrant = isinstance(function, partial) and function.keywords.get(
            "use_reentrant", True
        )
        if getattr(module, "gradient_checkpointing", False) and is_reentrant:
            return (
                f"Cannot freeze a part of the model: module {name!r} uses reentrant activation "
                "checkpointing, which needs gradients down to the model's input; "
                'use {"use_reentrant": False}.'
            )
    return None

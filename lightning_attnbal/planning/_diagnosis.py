"""What a model would be refused or limited for, before any run."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from lightning_attnbal.core import UnsupportedModelError
from lightning_attnbal.measure import UnitSpec, discover_units
from lightning_attnbal.planning._finding import Finding, Verdict
from lightning_attnbal.planning._structure import look_at_structure
from lightning_attnbal.planning._trial import Forward, try_out


def diagnose_model(
    model: nn.Module,
    batch: Any = None,
    *,
    units: UnitSpec = None,
    forward: Forward | None = None,
) -> tuple[Finding, ...]:
    """What the balancer finds in a model, what it could not do with it, and why.

    Without a batch the model is only looked at. With one, a copy of it is trained for some steps,
    without an optimizer: that shows whether a frozen prefix can be cached, which residual branches
    can be cut, and which units no gradient reaches. Weights, modes and hooks are left as they are.

    Args:
        model: any module, in the mode it trains in.
        batch: as for `profile`; None: do not run the model.
        units: how to divide the model; None to discover its blocks.
        forward: runs the model instead, `forward(model, batch)`, and returns the loss or any
            output.

    Raises:
        TypeError: `model` is no module.
        ValueError: a pattern in `units` matches nothing.

    Example:
        >>> import torch
        >>> layers = (nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> for finding in diagnose_model(nn.Sequential(*layers), (torch.randn(8, 4),)):
        ...     print(finding)
        fine: units: 3 found: 2 block, 1 head.
        fine: parameters: 50 of 50 parameters may train.
        note: attention: No layers found that compute attention.
        fine: caching: A frozen prefix can be cached, up to 2.
        note: levels: cached, frozen and full (not detached, local: ...).
    """
    try:
        found = discover_units(model, units)
    except UnsupportedModelError as reason:
        return (Finding(Verdict.REFUSED, "units", str(reason)),)
    findings = list(look_at_structure(model, found))
    if batch is None:
        text = "Caching, cut branches, attention and gradients were not tried: that needs a batch."
        return (*findings, Finding(Verdict.NOTE, "levels", text))
    if not any(finding.verdict is Verdict.REFUSED for finding in findings):
        findings += try_out(copy.deepcopy(model), found, batch, forward)
    return tuple(findings)

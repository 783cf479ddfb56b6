"""Products of bf16 matrices on processors that have no instructions for them.

PyTorch multiplies bf16 matrices there with a plain loop, 3 to 40 times slower than float32 ones.
The same product is quickly had in float32: bf16 numbers are float32 numbers, and bf16 units add up
in float32, too, and round the sum once. So only the order of adding up differs, as between any two
processors, and the runs of one comparison may be done on either kind.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from recipes._common.processor import has_bf16_units

_PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")


@cache
def use_float32_products() -> torch.library.Library | None:
    """Let PyTorch multiply bf16 matrices in float32 from here on, where there are no units for it.

    Returns: what holds the registration; None where nothing was done.
    """
    if has_bf16_units():
        return None
    library = torch.library.Library("aten", "IMPL")
    for name in _PRODUCTS:
        library.impl(name, widened(name), "CPU", allow_override=True)
    return library


def widened(name: str) -> Callable[..., Tensor]:
    """The product of that name by way of float32 for bf16, as it was for anything else.

    Example:
        >>> a = torch.full((2, 2), 1.5, dtype=torch.bfloat16)
        >>> widened("mm")(a, a)
        tensor([[4.5000, 4.5000],
                [4.5000, 4.5000]], dtype=torch.bfloat16)
    """
    product = getattr(torch.ops.aten, name).out

    def multiply(*args: Tensor, **scales: float) -> Tensor:
        dtype = args[0].dtype
        is_wide = dtype != torch.bfloat16
        factors = args if is_wide else [factor.float() for factor in args]
        *_, left, right = factors
        out = left.new_empty((*left.shape[:-1], right.shape[-1]))
        product(*factors, **scales, out=out)
        return out if is_wide else out.to(dtype)

    return multiply

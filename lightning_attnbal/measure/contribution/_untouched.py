"""Run the model on the side, and put back everything the training could notice."""

from __future__ import annotations

import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_attnbal.measure._replay import forked_rng

_MAPPINGS = (dict, OrderedDict, defaultdict)
_SEQUENCES = (list, deque)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Whatever runs inside the block leaves the training trajectory bit for bit as it was.

    Put back at the end, also after an exception:

    - weights and buffers (BatchNorm statistics and counters), `requires_grad`, train or eval mode;
    - `.grad`: None inside the block, afterwards the same tensors as before;
    - all other attributes of the model's modules, with the contents of lists, dicts, sets and
      tensors in them: states of torchmetrics, forward hooks, counters;
    - the random states of Python, NumPy and torch, on the CPU and on the model's devices.

    Not covered: optimizers (don't step inside), generators of one's own, the data loader, and what
    modules keep in objects of other kinds. Costs a copy of the weights and buffers while it lasts,
    and a comparison with them at the end.

    Args:
        model: everything that runs inside must belong to it.

    Example:
        >>> model = nn.BatchNorm1d(2)
        >>> with untouched(model):
        ...     _ = model.eval().train()(torch.randn(8, 2))
        ...     int(model.num_batches_tracked)
        1
        >>> int(model.num_batches_tracked)
        0
    """
    with ExitStack() as stack:
        for device in {p.device for p in model.parameters() if p.device.type not in _NO_DEVICE}:
            stack.enter_context(forked_rng(device))
        stack.enter_context(forked_rng(None))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        # casts of weights that autocast may have cached with the block's graph
        stack.callback(torch.clear_autocast_cache)
        with torch.no_grad():
            for part in _parts(model):
                stack.callback(_restorer(part))
        yield


_NO_DEVICE = {"cpu", "meta"}


def _parts(model: nn.Module) -> Iterator[Any]:
    """Every tensor and plain container that the model's modules hold, each once."""
    seen: set[int] = set()
    waiting: list[Any] = [model]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, nn.Module):
            waiting.append(vars(part))
        elif isinstance(part, Tensor) or type(part) is set:
            yield part
        elif type(part) in _MAPPINGS:
            waiting.extend(part.values())
            yield part
        elif type(part) in _SEQUENCES:
            waiting.extend(part)
            yield part
        elif isinstance(part, tuple):
            waiting.extend(part)


def _restorer(part: Any) -> Callable[[], None]:
    """What brings `part` back to its present content, in place."""
    if isinstance(part, Tensor):
        return _tensor_restorer(part)
    content = part.copy()

    def restore() -> None:
        if not _is_same(part, content):
            part.clear()
            (part.extend if type(part) in _SEQUENCES else part.update)(content)

    return restore


def _is_same(part: Any, content: Any) -> bool:
    """Whether a container holds the very same objects in the same order."""
    if isinstance(part, dict):
        pairs = zip([*part, *part.values()], [*content, *content.values()], strict=False)
    else:
        pairs = zip(part, content, strict=False)
    return len(part) == len(content) and all(a is b for a, b in pairs)


def _tensor_restorer(tensor: Tensor) -> Callable[[], None]:
    """Content; for a leaf also its gradient, taken away until then, and `requires_grad`."""
    if tensor.is_meta:
        return lambda: None
    content = tensor.detach().clone()
    is_leaf, requires_grad = tensor.is_leaf, tensor.requires_grad
    gradient = tensor.grad if is_leaf else None
    if is_leaf:
        tensor.grad = None

    def restore() -> None:
        if is_leaf:
            if not tensor.is_leaf:  # a buffer that the block's graph was written into
                tensor.detach_()
            tensor.requires_grad_(requires_grad)
            tensor.grad = gradient
        if not torch.equal(tensor, content):
            # through .data: a graph from before may have saved the tensor, and finds it as it was
            tensor.data.copy_(content)

    return restore

"""What reads the results of a prefix's layers, in whatever way, during one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree  # torch has no public tree utilities yet
from torch.utils._python_dispatch import TorchDispatchMode  # public in all but name

_Source = tuple[int, tuple[int, int]]


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, follows results of skipped layers through every operation.

    Autograd tells what the loss depends on smoothly; this also sees comparisons, detached targets,
    numbers taken out of tensors. What only flows into the prefix's next layer does not count.

    Attributes:
        needed: (number of the pass, place) of results that were read.
        outer: tensors from elsewhere that were read between layers of the prefix.

    Example:
        >>> import torch
        >>> x, reads = torch.ones(2), Reads()
        >>> with reads:
        ...     reads.follow({(0, (1, 0)): x})
        ...     is_large = bool((x.detach() > 2).any())
        >>> reads.needed
        {(0, (1, 0))}
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.needed: set[_Source] = set()
        self.outer: dict[int, Tensor] = {}
        self.is_between: Callable[[], bool] = lambda: False
        self._sources: dict[int, set[_Source]] = {}
        self._alive: list[Tensor] = []  # so that no other tensor gets its address
        self._inner: set[int] = set()
        self._is_paused = False

    def start(self) -> None:
        """Enter, for as long as no `with` block can span it."""
        self.__enter__()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Leave again."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def own(self, tensors: Iterable[Tensor]) -> None:
        """Tensors that are known to be no part of the model."""
        for tensor in tensors:
            self._inner.add(_address(tensor))
            self._alive.append(tensor)

    def follow(self, results: Mapping[_Source, Tensor]) -> None:
        """Follow these results from now on."""
        self.own(results.values())
        for source, tensor in results.items():
            self._sources.setdefault(_address(tensor), set()).add(source)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside a skipped layer anything may be read."""
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and note what it read."""
        result = func(*args, **(kwargs or {}))
        if not self._is_paused:
            self._note(_tensors((args, kwargs)), result)
        return result

    def _note(self, inputs: list[Tensor], result: Any) -> None:
        sources: set[_Source] = set()
        for tensor in inputs:
            sources |= self._sources.get(_address(tensor), set())
        if not self.is_between():
            self.needed |= sources
            return
        for tensor in inputs:
            if _address(tensor) not in self._inner:
                self.outer[_address(tensor)] = tensor
        outputs = _tensors(result)
        if len(outputs) < len(pytree.tree_leaves(result)):
            self.needed |= sources  # a number was taken out
        self.own(outputs)
        for tensor in outputs if sources else ():
            self._sources.setdefault(_address(tensor), set()).update(sources)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors of a tree that have an address of their own."""
    leaves = (x for x in pytree.tree_leaves(tree) if isinstance(x, Tensor))
    return [x for x in leaves if x.numel() and x.device.type != "meta"]

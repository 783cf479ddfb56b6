"""Where a tensor came from: data flow between the units, followed while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree  # torch has no public tree utilities yet
from torch.utils.weak import WeakTensorKeyDictionary

Sources = frozenset[int | str]

_NOTHING: Sources = frozenset()
_CUTS = {"detach", "detach_"}
_COSTLY = {
    *("linear", "bilinear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "addbmm"),
    *("baddbmm", "einsum", "tensordot", "inner", "chain_matmul", "multi_dot", "linalg_multi_dot"),
    *("conv1d", "conv2d", "conv3d", "scaled_dot_product_attention", "multi_head_attention_forward"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "cdist"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"),
}


def is_kv_cache(value: object) -> bool:
    """Whether `value` is a Hugging Face key-value cache; told by name, transformers stays optional.

    Example:
        >>> is_kv_cache([1, 2])
        False
    """
    return any(
        base.__name__ == "Cache" and base.__module__.startswith("transformers.")
        for base in type(value).__mro__
    )


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Leaves and structure of nested containers, packed sequences too; a key-value cache is a leaf.

    Example:
        >>> flatten({"a": (1, None)})[0]
        [1, None]
    """
    leaves, structure = pytree.tree_flatten(tree, is_leaf=lambda x: x is None or is_kv_cache(x))
    packed = {i for i, leaf in enumerate(leaves) if isinstance(leaf, PackedSequence)}
    flat = [x for i, leaf in enumerate(leaves) for x in (leaf if i in packed else (leaf,))]
    return flat, (structure, tuple(sorted(packed)))


def unflatten(leaves: Iterable[Any], structure: Any) -> Any:
    """The inverse of `flatten`.

    Example:
        >>> unflatten(*flatten([1, (2, 3)]))
        [1, (2, 3)]
    """
    tree, packed = structure
    rest = iter(leaves)
    whole = [
        PackedSequence(*islice(rest, len(PackedSequence._fields))) if i in packed else next(rest)
        for i in range(tree.num_leaves)
    ]
    return pytree.tree_unflatten(whole, tree)


class Provenance(TorchFunctionMode):
    """Follows which calls and which bare parameters every tensor depends on.

    The sources of a result are those of its arguments, until `mark` says that a tensor is the
    output of a call. `detach` and results that cannot carry a gradient cut the flow. Each operation
    that can cost FLOPs is reported to `on_compute`, whose answer becomes the only source of its
    result. It only looks: every function is run as it was called.

    Args:
        parameters: parameter name → parameter; a parameter is a source of its own, named by its
            name.
        on_compute: receives (function, args, kwargs) and returns the number of the call.

    Example:
        >>> import torch
        >>> weight = nn.Parameter(torch.ones(2))
        >>> with Provenance({"weight": weight}, lambda *call: 7) as flow:
        ...     x = torch.ones(2)
        ...     y, z = (x + weight).relu(), (x @ weight).exp()
        >>> flow.sources(x), flow.sources(y), flow.sources(z), flow.sources(y.detach())
        (frozenset(), frozenset({'weight'}), frozenset({7}), frozenset())
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        on_compute: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], int],
    ) -> None:
        super().__init__()
        self.paused = False
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._on_compute = on_compute
        self._known = WeakTensorKeyDictionary()

    def sources(self, value: object) -> Sources:
        """Calls (by number) and bare parameters (by name) that `value` depends on."""
        if not isinstance(value, Tensor):
            return _NOTHING
        if id(value) in self._names:
            return frozenset({self._names[id(value)]})
        found: Sources | None = self._known.get(value)  # type: ignore[no-untyped-call]  # torch's
        if found is None and value._base is not None:
            return self.sources(value._base)
        return _NOTHING if found is None else found

    def mark(self, value: object, sources: Sources) -> None:
        """Say where `value` came from; written through a view, its base came from there too."""
        if isinstance(value, Tensor) and id(value) not in self._names:
            can_flow = value.is_floating_point() or value.is_complex()
            self._known[value] = sources if can_flow else _NOTHING

    def _mark_written(self, value: object, sources: Sources) -> None:
        self.mark(value, sources)
        if isinstance(value, Tensor) and value._base is not None:
            self.mark(value._base, sources | self.sources(value._base))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run `func` unchanged and note where its results came from."""
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        given = flatten((args, kwargs))[0]
        sources = _NOTHING.union(*map(self.sources, given))
        if name in _COSTLY:
            sources = frozenset({self._on_compute(func, args, kwargs)})
        result = func(*args, **kwargs)
        if name in _CUTS:
            sources = _NOTHING
        inputs = {id(value) for value in given}
        results = [args[0]] if name == "__setitem__" else flatten(result)[0]
        for value in results:
            mark = self._mark_written if id(value) in inputs else self.mark
            mark(value, sources)
        return result

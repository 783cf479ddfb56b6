"""All that some modules compute with, besides their input, and whether it has changed."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attnbal.apply.cache._identity import PLAIN, as_bytes

_SAMPLES = 16  # numbers of each tensor that are looked at on every call
_SIMPLE, _DICTS = frozenset(PLAIN), frozenset({dict, OrderedDict})
_MANY = 256  # a larger collection is data, not a setting
_COLLECTIONS = (list, tuple, set, frozenset)
_OWN = ("forward", "training")  # what caching sets itself


class State:
    """Parameters, buffers, attributes, hooks and parts of some modules.

    Hooks on the modules themselves do not count: they run in any case. `marks` tells at a low price
    whether anything was changed: a tensor written to or replaced, an
    attribute set, a hook added, a part exchanged. Writes that PyTorch does not count (through
    `.data`, numpy or a raw pointer) show if they touch one of a few sampled numbers of each tensor,
    as all that rescale, average or load weights do. Nothing shows what is changed inside of objects
    that are neither tensors, modules nor plain values.

    Args:
        modules: by name; all that is inside of them counts, too.
        loose: parameters outside of them: (module, name of the attribute).
        others: further tensors.

    Example:
        >>> state = State({"": (linear := nn.Linear(2, 2))})
        >>> before = state.marks()
        >>> before == state.marks()
        True
        >>> linear.weight.data.mul_(2) is None, before == state.marks()
        (False, False)
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        loose: Sequence[tuple[nn.Module, str]] = (),
        others: Sequence[Tensor] = (),
    ) -> None:
        self._modules = modules
        self._loose = tuple(loose)
        self._others = tuple(others)
        self._alive: list[Any] = []  # what is marked by its identity must not be freed
        self._sampled: tuple[Any, ...] = ()
        self._samples: list[Tensor] = []

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Watch further tensors from now on."""
        self._others += tuple(tensors)

    def marks(self) -> tuple[Any, ...]:
        """Equal as long as nothing changes."""
        found: list[Any] = []
        alive: list[Any] = []
        tensors: list[Tensor] = []
        for module, is_top in self._inside():
            found += (id(module), *vars(module))
            for name, value in vars(module).items():
                kind = type(value)
                if kind in _SIMPLE:
                    found.append(value)
                elif kind in _DICTS and not value:
                    found.append(0)  # most of a module's attributes, on each call
                elif name != "forward" and not (is_top and "hooks" in name):
                    found += _marks_of(value, alive, tensors)
        tensors += [getattr(module, name) for module, name in self._loose]
        tensors += self._others
        where = tuple((id(x), x.data_ptr()) for x in tensors)
        if where != self._sampled:
            self._samples = [_sample(x) for x in tensors]
            self._sampled = where
        self._alive = [alive, tensors]
        versions = [(x._version, x.requires_grad) for x in tensors]
        return (tuple(found), where, tuple(versions), _numbers(self._samples))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with a name that is the same in each run."""
        for name, module in self._named():
            for key, value in vars(module).items():
                inside = value.items() if isinstance(value, dict) else [(key, value)]
                yield from ((f"{name}.{k}", x) for k, x in inside if isinstance(x, Tensor))
        for i, (module, name) in enumerate(self._loose):
            yield f"{i} {name}", getattr(module, name)
        yield from ((str(i), tensor) for i, tensor in enumerate(self._others))

    def digest(self) -> str:
        """Of the exact weights, the modules' settings and the version of PyTorch."""
        digest = hashlib.blake2b(torch.__version__.encode(), digest_size=16)
        for name, module in self._modules.items():
            digest.update(f"{name}:{module!r};".encode())
        for name, module in self._named():
            is_top = name.endswith(".")
            found = sorted(filter(None, (_setting(k, x, is_top) for k, x in vars(module).items())))
            digest.update(f"{name}:{type(module).__qualname__}{found};".encode())
        for name, tensor in self.tensors():
            digest.update(f"{name}:{tensor.dtype}{tuple(tensor.shape)};".encode())
            digest.update(as_bytes(tensor))
        return digest.hexdigest()

    def trains(self) -> bool:
        """Whether a gradient is wanted of any of it."""
        return any(tensor.requires_grad for _, tensor in self.tensors())

    def _named(self) -> Iterator[tuple[str, nn.Module]]:
        for top, module in self._modules.items():
            for name, part in module.named_modules():
                yield f"{top}.{name}", part

    def _inside(self) -> Iterator[tuple[nn.Module, bool]]:
        """All modules, and whether their own hooks run even when they are skipped."""
        for top in self._modules.values():
            yield from ((module, module is top) for module in top.modules())


class Settings:
    """Public attributes of some modules that are plain values or tensors, as part of a row's key.

    What the modules' own forward changes is no setting: a counter, or a result that is noted.

    Args:
        modules: by name; what is inside of them does not count.

    Example:
        >>> module = nn.Linear(2, 2)
        >>> settings = Settings({"": module})
        >>> before = settings.digest()
        >>> module.task = "b"
        >>> before == settings.digest()
        False
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._written: set[str] = set()

    def now(self) -> dict[str, Any]:
        """By name, each setting."""
        return {
            f"{name}.{key}": value
            for name, module in self._modules.items()
            for key, value in vars(module).items()
            if not key.startswith("_")
            and key not in _OWN
            and (isinstance(value, Tensor) or _is_plain(value))
            and f"{name}.{key}" not in self._written
        }

    def leave_out_changes(self, before: Mapping[str, Any]) -> None:
        """What is not as it was before the forward is no setting from now on."""
        after = self.now()
        self._written |= {
            k for k in {**before, **after} if not _is_same(before.get(k), after.get(k))
        }

    def digest(self) -> bytes:
        """Of all settings."""
        digest = hashlib.blake2b(digest_size=16)
        for name, value in self.now().items():
            if isinstance(value, Tensor):
                digest.update(f"{name}:{value.dtype}{tuple(value.shape)};".encode())
                digest.update(as_bytes(value))
            else:
                digest.update(f"{name}:{value!r};".encode())
        return digest.digest()


def _is_same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) or isinstance(after, Tensor):
        return before is after
    return bool(before == after)


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (
        isinstance(value, _COLLECTIONS)
        and len(value) <= _MANY
        and all(isinstance(x, PLAIN) for x in value)
    )


def _setting(name: str, value: Any, is_top: bool) -> str | None:
    """What an attribute sets, in words that are the same in each run."""
    if name in _OWN:
        return None
    if _is_plain(value):
        return f"{name}={value!r}"
    if isinstance(value, dict) and "hooks" in name and value and not is_top:
        names = [getattr(hook, "__qualname__", type(hook).__qualname__) for hook in value.values()]
        return f"{name}={names}"
    return None


def _marks_of(value: Any, alive: list[Any], tensors: list[Tensor]) -> Iterable[Any]:
    """What changes with an attribute; tensors are noted instead."""
    if not isinstance(value, dict) or len(value) > _MANY:
        return (_mark_of(value, alive, tensors),)
    marks: list[Any] = []
    for key, inside in value.items():  # parameters, buffers, hooks, parts
        marks += (key, _mark_of(inside, alive, tensors))
    return marks


def _mark_of(value: Any, alive: list[Any], tensors: list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors.append(value)
        return None
    if isinstance(value, PLAIN):
        return value
    if _is_plain(value):
        return type(value)(value)
    alive.append(value)
    return (id(value), len(value)) if isinstance(value, (*_COLLECTIONS, dict)) else id(value)


def _sample(tensor: Tensor) -> Tensor:
    """A view of a few numbers, which shares memory and so keeps it from being given away."""
    flat = tensor.detach()
    if not flat.is_contiguous():
        return flat[(0,) * (flat.dim() - 1)][:_SAMPLES]
    flat = flat.view(-1)
    step = max(1, len(flat) // _SAMPLES)
    return flat[step // 2 :: step][:_SAMPLES]


def _numbers(samples: Sequence[Tensor]) -> tuple[bytes, ...]:
    """The numbers of all samples, one read per type and device."""
    kinds: dict[Any, list[Tensor]] = {}
    for sample in samples:
        kinds.setdefault((sample.dtype, sample.device), []).append(sample)
    return tuple(bytes(as_bytes(torch.cat(same))) for same in kinds.values())

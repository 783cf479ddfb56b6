"""What is known about one cached prefix: its modules, what leaves it, what was shown of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attnbal.apply.cache._identity import Rows
from lightning_attnbal.apply.cache._order import Skippable
from lightning_attnbal.apply.cache._outputs import Leaf, Result
from lightning_attnbal.apply.cache._pass import Place
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.core import Unit

_MOST_LAYOUTS = 256

_UNCLEAR = -1


def _pick(axes: frozenset[int | None]) -> int | None:
    """The first dimension if it can be, by convention."""
    if 0 in axes or len(axes) == 1:
        return 0 if 0 in axes else next(iter(axes))
    return _UNCLEAR


@dataclass(frozen=True, slots=True)
class Seen:
    """When a row last went through the prefix: in which call, padded to what length."""

    call: int
    width: int


@dataclass
class Cut:
    """One cached prefix.

    Args:
        names: the units, from the bottom.
        skippable: what need not run.
        modules: the units' modules by name.
        tensors: their parameters and buffers by name.

    Attributes:
        trims: whether padding is left out of what is stored; None until it is known.
        needed: which tensors leave the prefix; None until it is known.
        axes: what may be the dimension of samples of each tensor that a call returns.
        forms: what the calls return, by layout of the host's arguments.
        proven: in which ways rows were read and found equal to computed ones.
        padding_proven: whether it was shown that padded positions do not matter.
        seen: the rows that went through, by key.
        batch_sizes: numbers of samples seen; with two of them a dimension of samples is certain.
    """

    names: tuple[str, ...]
    skippable: Skippable
    modules: Mapping[str, nn.Module]
    tensors: Mapping[str, Tensor]
    trims: bool | None = None
    needed: frozenset[Place] | None = None
    axes: dict[Place, frozenset[int | None]] = field(default_factory=dict)
    forms: dict[Any, tuple[Result, ...]] = field(default_factory=dict)
    proven: set[str] = field(default_factory=set)
    padding_proven: bool = False
    seen: dict[bytes, Seen] = field(default_factory=dict)
    batch_sizes: set[int] = field(default_factory=set)
    version: str = ""
    space: str = ""
    marks: tuple[Any, ...] = ()
    num_calls: int = 0
    num_served: int = 0

    def current_marks(self) -> tuple[Any, ...]:
        """Changes with every write to the prefix's weights that PyTorch knows of."""
        return tuple((x._version, x.data_ptr()) for x in self.tensors.values())

    def weights_hash(self) -> str:
        """Digest of the exact weights, the modules' settings and the version of PyTorch."""
        digest = hashlib.blake2b(torch.__version__.encode(), digest_size=16)
        for name in sorted(self.modules):
            digest.update(f"{name}:{self.modules[name]!r}".encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name].detach()
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            flat = tensor.cpu().contiguous().reshape(-1)
            digest.update(memoryview(flat.view(torch.uint8).numpy()))
        return digest.hexdigest()

    def name_of_space(self, version: str) -> str:
        """What a store calls the rows of this prefix with these weights."""
        host, calls = self.skippable.host, " ".join(self.skippable.calls)
        needed = " ".join(f"{call}.{at}" for call, at in sorted(self.needed or ()))
        return f"{version} {host}({calls}) -> {needed}{' trimmed' if self.trims else ''}"

    def why_unsteady(self) -> str | None:
        """The first module in train mode, if any: dropout and batch statistics would be at work."""
        for name, module in self.inside:
            if module.training:
                return f"{type(module).__name__} {name!r} is in train mode"
        return None

    @cached_property
    def inside(self) -> tuple[tuple[str, nn.Module], ...]:
        """All modules of the prefix whose mode matters (see `stochastic_modules` for the rest)."""
        return tuple(
            (f"{top}.{name}" if name else top, module)
            for top, parent in self.modules.items()
            for name, module in parent.named_modules()
            if type(module) is not nn.TransformerEncoderLayer
        )

    def learn_forms(self, rows: Rows, found: Sequence[Result]) -> tuple[Result, ...] | None:
        """Remember what calls of this layout return; None while it is not clear what is a sample.

        Raises:
            NotCacheableError: no dimension can be that of the samples in all calls so far.
        """
        self.batch_sizes.add(rows.count)
        forms, is_certain = [], True
        for call, result in enumerate(found):
            axes = [self._axis((call, at), x, rows) for at, x in enumerate(result.leaves)]
            is_certain &= _UNCLEAR not in axes
            forms.append(result.along(axes))
        if not is_certain:
            return None
        if len(self.forms) < _MOST_LAYOUTS:
            self.forms[rows.layout] = tuple(forms)
        return tuple(forms)

    def _axis(self, place: Place, leaf: Any, rows: Rows) -> int | None:
        """The dimension of samples, narrowed down by batches of different sizes."""
        if not isinstance(leaf, Leaf):
            return None
        now, before = leaf.axes(rows.count, is_clear=rows.is_clear), self.axes.get(place)
        known = now if before is None else now & before
        if not known:
            msg = f"what {self.skippable.calls[place[0]]} returns changes its form"
            raise NotCacheableError(msg)
        self.axes[place] = known
        axis = _pick(known)
        if before is not None and _pick(before) != axis:
            self.forms.clear()
            self.version = ""  # what was stored was cut up the wrong way
        return axis

    def can_pick(self, rows: Rows) -> bool:
        """Whether it is certain which dimensions are samples, so that some rows can be run."""
        return rows.is_clear or len(self.batch_sizes - {rows.count}) > 0

    def novelty(self, rows: Rows) -> set[str]:
        """In which ways these rows would be read that have not been shown to be sound yet."""
        seen = [self.seen.get(key) for key in rows.keys]
        width = 0 if rows.real is None else rows.real.shape[1]
        kinds = {"again"}
        if len({None if s is None else s.call for s in seen}) > 1:
            kinds.add("mixed")
        if any(s is None for s in seen):
            kinds.add("earlier")
        if any(s is not None and s.width != width for s in seen):
            kinds.add("repadded")
        return kinds - self.proven

    def note(self, rows: Rows, positions: Iterable[int]) -> None:
        """These rows went through the prefix in one call."""
        self.num_calls += 1
        width = 0 if rows.real is None else rows.real.shape[1]
        for i in positions:
            self.seen[rows.keys[i]] = Seen(self.num_calls, width)

    def may_trim(self, rows: Rows, forms: Sequence[Result]) -> bool:
        """Whether everything that leaves the prefix is of shape (B, L, …), L the padded length."""
        if rows.real is None:
            return False
        width = rows.real.shape[1]
        for call, position in self.needed or ():
            leaf = forms[call].leaves[position]
            assert isinstance(leaf, Leaf)
            if leaf.axis != 0 or leaf.shape[:1] != (width,) or width in leaf.shape[1:]:
                return False
        return True


def tensors_of(model: nn.Module, units: Iterable[Unit]) -> dict[str, Tensor]:
    """All parameters and buffers of some units."""
    known = dict(model.named_parameters(remove_duplicate=False))
    found: dict[str, Tensor] = {}
    for unit in units:
        found.update((name, known[name]) for name in unit.parameters)
        for module in unit.modules:
            inside = model.get_submodule(module)
            found.update((f"{module}.{n}", b) for n, b in inside.named_buffers())
    return found

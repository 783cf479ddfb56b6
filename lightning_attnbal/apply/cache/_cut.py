"""What is known about one cached prefix: its modules, what leaves it, what was shown of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lightning_attnbal.apply.cache._identity import Rows
from lightning_attnbal.apply.cache._order import Skippable
from lightning_attnbal.apply.cache._outputs import Leaf, Place, Result
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._speed import Speed
from lightning_attnbal.apply.cache._state import Settings, State

_MOST_LAYOUTS = 256
_MOST_RESTLESS = 2  # passes that may change something: caches are filled on first use
_MOST_VERSIONS = 4  # beyond one in ten calls

_UNCLEAR = -1


def _pick(axes: frozenset[int | None]) -> int | None:
    """The first dimension if it can be, by convention."""
    if 0 in axes or len(axes) == 1:
        return 0 if 0 in axes else next(iter(axes))
    return _UNCLEAR


@dataclass(frozen=True, slots=True)
class Seen:
    """When a row last went through the prefix: in which call, and how it was padded."""

    call: int
    offset: tuple[int, int]


@dataclass
class Cut:
    """One cached prefix.

    Args:
        names: the units, from the bottom.
        skippable: what need not run.
        modules: all modules of the units, by name.
        state: what they compute with.
        settings: of the modules of the host that are in no unit, and of the host itself.

    Attributes:
        trims: whether padding is left out of what is stored; None until it is known.
        needed: which tensors leave the prefix; None until it is known.
        axes: what may be the dimension of samples of each tensor that a call returns.
        forms: what the calls return, by layout of the host's arguments.
        proven: in which ways rows were read and found equal to computed ones.
        padding_proven: whether it was shown that padded positions do not matter.
        gives_nan: whether the host returns NaN on computed rows.
        seen: the rows that went through, by key.
        shared: arguments of the host that belong to all samples.
        batch_sizes: numbers of samples seen; with two of them a dimension of samples is certain.
        restless: passes that changed what the prefix computes with.
        speed: of calls with it computed and with it read.
        version: digest of what it computes with.
        space: what a store calls its rows.
        marks: of its state when that was last digested.
        is_doubtful: whether to digest it again although its marks are the same.
    """

    names: tuple[str, ...]
    skippable: Skippable
    modules: Mapping[str, nn.Module]
    state: State
    settings: Settings
    trims: bool | None = None
    needed: frozenset[Place] | None = None
    axes: dict[Place, frozenset[int | None]] = field(default_factory=dict)
    forms: dict[Any, tuple[Result, ...]] = field(default_factory=dict)
    proven: set[str] = field(default_factory=set)
    padding_proven: bool = False
    gives_nan: bool = False
    seen: dict[bytes, Seen] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    batch_sizes: set[int] = field(default_factory=set)
    version: str = ""
    space: str = ""
    marks: tuple[Any, ...] = ()
    is_doubtful: bool = True
    num_calls: int = 0
    num_versions: int = 0
    restless: int = 0
    speed: Speed = field(default_factory=Speed)

    def name_of_space(self, version: str) -> str:
        """What a store calls the rows of this prefix with these weights."""
        host, calls = self.skippable.host, " ".join(self.skippable.calls)
        places = sorted(self.needed or ())
        needed = " ".join(f"{at}@{_pick(self.axes[at])}" for at in places if at in self.axes)
        return f"{version} {host}({calls}) -> {needed}{' trimmed' if self.trims else ''}"

    def check(self) -> None:
        """See whether it computes what it did, after its marks have changed.

        Raises:
            NotCacheableError: it is trained, or not in eval mode, so that dropout and batch
                statistics would be at work.
        """
        for top, parent in self.modules.items():
            for name, module in parent.named_modules():
                if module.training and type(module) is not nn.TransformerEncoderLayer:
                    where = f"{top}.{name}" if name else top
                    msg = f"{type(module).__name__} {where!r} is in train mode"
                    raise NotCacheableError(msg)
        if self.state.trains():
            msg = "parameters of it are trained"
            raise NotCacheableError(msg)

    def renew(self, version: str) -> None:
        """The weights are others than those of the rows seen so far.

        Raises:
            NotCacheableError: this happens all the time.
        """
        self.version, self.num_versions = version, self.num_versions + 1
        if self.num_versions > _MOST_VERSIONS + self.num_calls // 10:
            msg = "its weights or settings change all the time"
            raise NotCacheableError(msg)

    def note_change(self, reason: str) -> None:
        """A pass changed something that it should leave alone.

        Raises:
            NotCacheableError: not only on first use.
        """
        self.restless += 1
        self.is_doubtful = True
        if self.restless > _MOST_RESTLESS:
            raise NotCacheableError(reason)

    def forget(self) -> None:
        """Nothing is stored any more, and nothing shown."""
        self.space, self.version = "", ""
        for known in (self.seen, self.proven, self.forms):
            known.clear()

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
        if self.forms.get(rows.layout, tuple(forms)) != tuple(forms):
            msg = "what it returns has another form though its input has not"
            raise NotCacheableError(msg)
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
            self.version, self.is_doubtful = "", True  # what was stored was cut up the wrong way
        return axis

    def can_pick(self, rows: Rows) -> bool:
        """Whether it is certain which dimensions are samples, so that some rows can be run."""
        return rows.is_clear or len(self.batch_sizes - {rows.count}) > 0

    def novelty(self, rows: Rows, missing: Sequence[int]) -> set[str]:
        """In which ways these rows would be read that have not been shown to be sound yet."""
        gone = set(missing)
        seen = [(self.seen.get(rows.keys[i]), i) for i in range(rows.count) if i not in gone]
        kinds = {"again"} if seen else set()
        if len({None if s is None else s.call for s, _ in seen}) > 1:
            kinds.add("mixed")
        if any(s is None for s, _ in seen):
            kinds.add("earlier")
        if any(s is not None and s.offset != rows.offsets[i] for s, i in seen):
            kinds.add("repadded")
        if missing and seen:
            kinds.add("part")
        return kinds - self.proven

    def note(self, rows: Rows, positions: Iterable[int]) -> None:
        """These rows went through the prefix in one call."""
        self.num_calls += 1
        for i in positions:
            self.seen[rows.keys[i]] = Seen(self.num_calls, rows.offsets[i])

    def may_trim(self, rows: Rows, forms: Sequence[Result]) -> bool:
        """Whether all that leaves the prefix can be of shape (B, L, …), L the padded length.

        If it is of another shape by which it only seems so, rows will not fit, or not do.
        """
        if rows.real is None:
            return False
        width = rows.real.shape[1]
        for call, position in self.needed or ():
            leaf = forms[call].leaves[position]
            assert isinstance(leaf, Leaf)
            if leaf.axis != 0 or leaf.shape[:1] != (width,):
                return False
        return True

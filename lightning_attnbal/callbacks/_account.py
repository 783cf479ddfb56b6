"""What a cached prefix is charged: each sample once, and the checks at their expected rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_attnbal.core import Plan

_PROOFS = 2.0  # comparisons of a new prefix: in another batch, and padded in another way
_KEY_BYTES = 16

Names = tuple[str, ...]


@dataclass
class Charge:
    """Shares of the samples of a step.

    Args:
        run: by unit of the prefix, those that are charged as run, in [0, 1].
        read: those that are charged as read, in [0, 1].
        proofs: comparisons to charge, each a pass of the prefix and a forward pass of the rest.
    """

    run: dict[str, float] = field(default_factory=dict)
    read: float = 0.0
    proofs: float = 0.0


class Account:
    """Which samples were paid for, by prefix.

    What is charged depends on the order of the samples and the plans alone, not on what the store
    holds: so a resumed run, which has to compute what was lost, spends what the uninterrupted one
    does. A sample is paid for once it is stored; a plan that trains a unit makes all prefixes with
    that unit start anew.

    Example:
        >>> account = Account()
        >>> account.charge(("low",), [(b"a", b"b")]).run
        {'low': 1.0}
        >>> account.pay(("low",), [b"a"])
        >>> account.charge(("low",), [(b"a", b"b")]).run, account.num_paid(("low",))
        ({'low': 0.5}, 1)
    """

    def __init__(self) -> None:
        self._paid: dict[Names, set[bytes]] = {}
        self._proven: set[Names] = set()

    def num_paid(self, names: Names, beyond: Names = ()) -> int:
        """How many samples of this prefix need not be run again; those of `beyond` do not count."""
        paid = self._paid.get(names, set())
        return len(paid - self._paid.get(beyond, set())) if paid else 0

    def charge(self, names: Names, calls: Sequence[Sequence[bytes]]) -> Charge:
        """What a step with these calls costs.

        Args:
            names: units of the cached prefix.
            calls: keys of the samples of each call.
        """
        charge = Charge(run=dict.fromkeys(names, 0.0))
        total = sum(map(len, calls))
        paid = self._paid.get(names, set())
        for keys in calls:
            fresh = [key for key in keys if key not in paid]
            shallower, spared = self._spared(names, fresh)
            for name in names:
                run = len(fresh) - (spared if name in shallower else 0)
                charge.run[name] += run / total
            charge.read += (len(keys) - len(fresh)) / total
        if charge.read:
            charge.proofs = self.proofs_left(names)
            self._proven.add(names)
        return charge

    def proofs_left(self, names: Names) -> float:
        """Comparisons that are still to be charged for this prefix."""
        return 0.0 if names in self._proven else _PROOFS

    def _spared(self, names: Names, keys: Sequence[bytes]) -> tuple[Names, int]:
        """A shallower prefix, and how many of these samples need not be run through it.

        Of several the one that spares the most units of samples, the deepest of equals.
        """
        depths = range(len(names) - 1, 0, -1)
        counts = {n: sum(k in self._paid.get(names[:n], ()) for k in keys) for n in depths}
        depth = max(counts, key=lambda n: n * counts[n], default=0)
        return names[:depth], counts.get(depth, 0)

    def pay(self, names: Names, keys: Sequence[bytes]) -> None:
        """These samples are stored."""
        self._paid.setdefault(names, set()).update(keys)

    def train(self, plan: Plan) -> None:
        """The weights of some units change from now on."""
        trained = set(plan.trained)
        for names in [names for names in self._paid if not trained.isdisjoint(names)]:
            del self._paid[names]
            self._proven.discard(names)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "paid": [(list(names), _pack(keys)) for names, keys in self._paid.items()],
            "proven": sorted(map(list, self._proven)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._paid = {tuple(names): _unpack(keys) for names, keys in state["paid"]}
        self._proven = {tuple(names) for names in state["proven"]}


def _pack(keys: Collection[bytes]) -> Tensor:
    """(N, 16) bytes, sorted, so that equal sets give equal checkpoints."""
    data = torch.tensor(list(b"".join(sorted(keys))), dtype=torch.uint8)
    return data.reshape(-1, _KEY_BYTES)


def _unpack(keys: Tensor) -> set[bytes]:
    return {bytes(row) for row in keys.numpy()}

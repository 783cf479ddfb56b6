"""What caching a prefix costs and saves in this run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from lightning_attnbal.apply.cache import ActivationStore, CacheSettings, PrefixCache
from lightning_attnbal.callbacks._account import Account
from lightning_attnbal.core import CACHED, FROZEN, Caching, Plan, Unit, UnitLoad
from lightning_attnbal.planning import caching_terms

Forwards = Callable[[], Mapping[str, float]]


class Caches:
    """The prefix cache of a run, its account and its terms; inert without settings.

    Args:
        model: the model in training.
        units: its units.
        settings: how to cache; None: not at all.
        is_timed: whether the budget is a time, so that reading has to be faster than computing.

    Attributes:
        epoch_batches: batches per epoch, None if the data has no known length.
        flops_saved: what would have been spent on samples that were read.
        is_reading: whether most samples of the last step were read.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        settings: CacheSettings | None,
        *,
        is_timed: bool = False,
    ) -> None:
        self._settings = settings
        self.store: ActivationStore | None = None
        self.prefix: PrefixCache | None = None
        if settings is not None:
            self.store = settings.open()
            every = settings.audit_every
            self.prefix = PrefixCache(
                model, units, self.store, audit_every=every, is_timed=is_timed
            )
        self.epoch_batches: int | None = None
        self.account = Account()
        self.flops_saved = 0.0
        self.is_reading = False
        self._rows, self._batches = 0, 0
        self._thawed: dict[Plan, Plan] = {}

    # -- as the run goes on ------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """An epoch starts."""
        if self.prefix is not None:
            self.prefix.begin_epoch()

    def begin_step(self, *, is_traced: bool = False) -> None:
        """A batch starts; one whose calls are counted is not run a second time to compare."""
        if self.prefix is not None:
            self.prefix.begin_step(may_run_twice=not is_traced)

    def end_forward(self, loss: Tensor | None) -> None:
        """Its loss is known."""
        if self.prefix is not None:
            self.prefix.end_forward(loss)

    def end_backward(self) -> None:
        """Its gradients are there."""
        if self.prefix is not None:
            self.prefix.end_backward()

    def end_step(self, plan: Plan, forwards: Mapping[str, float]) -> float:
        """What the batch cost beyond what trains, in FLOPs: samples run, results compared.

        Args:
            plan: the plan in force.
            forwards: unit name → FLOPs of its forward pass on this batch.
        """
        names = _cached(plan)
        if self.prefix is None or self._settings is None or not names:
            self.is_reading = False
            return 0.0
        self.is_reading = self.prefix.computed_share < 0.5
        whole = sum(forwards[name] for name in names)
        calls = self.prefix.step_keys()
        if not calls:
            return whole
        self._rows += sum(map(len, calls))
        self._batches += 1
        charge = self.account.charge(names, calls)
        for keys in calls:
            self.account.pay(names, self.prefix.stored(keys))
        run = sum(forwards[name] * charge.run[name] for name in names)
        checks = charge.read * whole / self._settings.audit_every
        checks += charge.proofs * sum(forwards.values())
        self.flops_saved += whole - run - checks
        return run + checks

    def apply(self, plan: Plan) -> None:
        """A plan takes effect: what it trains makes rows of prefixes with it worthless."""
        self.account.train(plan)

    def close(self) -> None:
        """Give memory and files back."""
        if self.store is not None:
            self.store.close()

    # -- what it takes -----------------------------------------------------------------------

    def thawed(self, plan: Plan) -> Plan:
        """The plan with cached units frozen: what runs while the cache fills."""
        if plan not in self._thawed:
            levels = {name: FROZEN if plan[name] == CACHED else plan[name] for name in plan}
            self._thawed[plan] = Plan(levels)
        return self._thawed[plan]

    def effective(self, plan: Plan) -> Plan:
        """What the last step really did: the plan, or its thawed form if samples were run."""
        return plan if self.is_reading or not _cached(plan) else self.thawed(plan)

    def fill_left(self, plan: Plan, forwards: Forwards) -> float:
        """Batches that must still be run through the prefix once until its cache is full.

        Args:
            plan: its cached units are the prefix.
            forwards: gives unit name → FLOPs of its forward pass; called only if it matters.
        """
        names = _cached(plan)
        return self._fill(names, forwards) if names else 0.0

    def most(self, plan: Plan, forwards: Forwards) -> float:
        """The most that a batch may be charged beyond its thawed plan, in FLOPs."""
        names = _cached(plan)
        proofs = self.account.proofs_left(names) if names else 0.0
        return proofs * sum(forwards().values()) if proofs else 0.0

    @property
    def checks_share(self) -> float:
        """Share of the reads of a full cache that is charged for checks."""
        return 0.0 if self._settings is None else 1.0 / self._settings.audit_every

    def why_refused(self, plan: Plan | None) -> str | None:
        """Why this plan's prefix turned out not to be cacheable, if so."""
        names = () if plan is None else _cached(plan)
        return self.prefix.why_not(names) if self.prefix is not None and names else None

    def terms(self, loads: Sequence[UnitLoad], *, is_timed: bool) -> dict[str, Caching]:
        """By unit, what caching it takes; units that cannot be cached are missing.

        Args:
            loads: forward order.
            is_timed: whether costs are seconds, so that reading has one.
        """
        if self.prefix is None or self.store is None or not self.epoch_batches:
            return {}
        flops = {load.unit.name: load.flops.forward for load in loads}
        prefix = self.prefix
        return caching_terms(
            loads,
            self.store,
            self.epoch_batches,
            is_timed=is_timed,
            fill=lambda names: self._fill(names, lambda: flops),
            is_refused=lambda names: prefix.why_not(names) is not None,
        )

    def _fill(self, names: Sequence[str], forwards: Forwards) -> float:
        """Batches to run through all of these units, shallower rows that are stored counted in."""
        if self.prefix is None or not self.epoch_batches:
            return 0.0
        per_batch = self._rows / self._batches if self._batches else 1.0
        whole, count = tuple(names), self.account.num_paid
        missing = max(0.0, self.epoch_batches - count(whole) / per_batch)
        shallower = [count(whole[:i], beyond=whole) / per_batch for i in range(1, len(whole))]
        if not missing or not any(shallower):
            return missing
        flops = forwards()
        sums = list(accumulate(flops[name] for name in names))
        if not sums[-1]:
            return 0.0
        pairs = zip(shallower, sums[:-1], strict=True)
        spared = max((min(n, missing) * forward for n, forward in pairs), default=0.0)
        return missing - spared / sums[-1]

    # -- checkpoints -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint; what is stored is not part of it."""
        return {
            "flops_saved": self.flops_saved,
            "rows": self._rows,
            "batches": self._batches,
            "account": self.account.state_dict(),
            "order": None if self.prefix is None else self.prefix.order_to_list(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.flops_saved = float(state["flops_saved"])
        self._rows, self._batches = int(state["rows"]), int(state["batches"])
        self.account.load_state_dict(state["account"])
        if self.prefix is not None and state["order"] is not None:
            self.prefix.order_from_list(state["order"])


def _cached(plan: Plan) -> tuple[str, ...]:
    return tuple(name for name in plan if plan[name] == CACHED)

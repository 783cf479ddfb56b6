"""Where a run ends: a learning curve in steps, with what only some units can reach."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import gamma, gammainc

from lightning_attnbal.allocate._progress import Progress
from lightning_attnbal.core import Problem, check_number

Array = NDArray[np.float64]

_SCALES = np.exp(np.linspace(-2.5, 2.5, 21))  # around the prior's scale
_SHARES = np.array([1 / 3, 1.0, 3.0])  # around the prior's `own`
_SHARE_WEIGHTS = np.array([0.25, 0.5, 0.25])
_SPREAD_OF_PASSES = 0.4
_AT_ONCE = 128  # plans in one go: what fits the processor's cache
_NOISE = 0.03  # of the first loss: batches differ, and the curve is only a curve


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePrior:
    """What is believed about learning curves before a run has shown its own.

    The loss after training is taken to be

        L = floor + A · [(1 - ρ) · h(X) + ρ · (1 - S)^κ],  h(x) = (1 + x / τ)^-β,

    with X = Σ over steps of v(Σ_{u trained} w_u), v(w) = (1 + c²) · w² / (w² + c²), and
    S = Σ_u w_u · (1 - h(x_u / s)), where w_u is unit u's share of the contribution and x_u the
    steps in which u trained. Most of what there is to learn any trained units can learn (layers are
    substitutes), at a speed v that depends little on how many train once they hold more than c of
    the contribution; the rest needs those that hold most of it. ρ = 0 and c = 0 is "only steps
    count".

    The end of the user's own run says how often the data is meant to be passed over: all steps to
    it count the same, as they do from scratch. Elsewhere steps on data seen before count less: one
    in pass p > 1 counts exp(-((p - 1) / s)⁴), s = 0.4 · (`passes` - 1), beyond `passes` passes
    nothing, and as little counts the loss seen there, which is no longer that of new data.

    Args:
        own: ρ, in [0, 1]; uncertain by a factor of 3.
        order: κ, in (0, inf).
        slowness: s, in (0, inf): a few steps of everything do not stand for training it.
        half: c, in [0, inf); units that hold so much of the contribution learn at about half speed.
        scale: τ in epochs, in (0, inf); widely uncertain, fitted on the run.
        least: steps that τ is at least, in [0, inf): a step moves weights by no more than about the
            learning rate, however little data there is.
        spread: standard deviation of log τ, in (0, inf).
        power: β, in (0, inf).
        passes: over the data that may be of use to a run without an end of its own, in (0, inf).

    Raises:
        ValueError: a number is out of range.

    Source: own, chosen by hand so as to order some 30 measured runs of one encoder on two sets of
        texts, whole and in small parts (head alone to everything, 0.4 to 6 passes), by their error:
        a prior. That data seen a few times counts nearly as if new, and then hardly, is as in
        Muennighoff et al., "Scaling Data-Constrained Language Models", 2023, who find it far later
        in pretraining.

    Example:
        >>> CurvePrior().power
        2.0
    """

    own: float = 0.07
    order: float = 3.0
    slowness: float = 8.0
    half: float = 0.2
    scale: float = 0.16
    least: float = 30.0
    spread: float = 0.7
    power: float = 2.0
    passes: float = 6.0

    def __post_init__(self) -> None:
        check_number("own", self.own, low=0, high=1)
        check_number("half", self.half, low=0)
        check_number("least", self.least, low=0)
        for name in ("order", "slowness", "scale", "spread", "power", "passes"):
            check_number(name, getattr(self, name), low=0, low_open=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Loss at the end of a run, for each of a set of curves.

    Args:
        losses: (K,) one per curve.
        weights: (K,) how likely each is; they sum to 1.

    Example:
        >>> Outcome(np.array([1.0, 3.0]), np.array([0.5, 0.5])).mean
        2.0
    """

    losses: Array
    weights: Array

    @property
    def mean(self) -> float:
        """Expected loss."""
        return float(self.weights @ self.losses)

    @property
    def std(self) -> float:
        """Standard deviation of the loss over the curves."""
        return float(math.sqrt(self.weights @ (self.losses - self.mean) ** 2))

    def above(self, other: Outcome) -> tuple[float, float]:
        """Mean and standard deviation of this loss less the other, curve by curve."""
        difference = Outcome(self.losses - other.losses, self.weights)
        return difference.mean, difference.std


class Forecast:
    """Learning curves that go with a run so far, each with its probability.

    Curves differ in τ and ρ; floor and A of each are fitted to the losses seen, and the fit weighs
    the curve against its prior. Without losses the forecast is in units of the first loss.

    Args:
        problem: whose values are the contributions.
        progress: the run so far.
        epoch_steps: optimizer steps per epoch, in [1, inf).
        prior: what is believed beforehand.
        has_end: whether the user's own run has one.

    Attributes:
        unit: the first loss seen, 1 without one.
        is_from_scratch: whether most units had never been trained when the run began.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> menu = (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> forecast = Forecast(problem, Progress(), 100, CurvePrior())
        >>> few, many = forecast({"low", "high"}, 50), forecast({"high"}, 100)
        >>> many.mean < few.mean
        True
    """

    def __init__(
        self,
        problem: Problem,
        progress: Progress,
        epoch_steps: int,
        prior: CurvePrior,
        *,
        has_end: bool = False,
    ) -> None:
        self._prior = prior
        self._epoch = epoch_steps
        self._names = [menu.unit for menu in problem.menus]
        self._weights = _contribution_shares(problem)
        self.is_from_scratch = progress.is_from_scratch(self._names)
        self._wears = not (self.is_from_scratch or has_end)
        scales = max(prior.scale * epoch_steps, prior.least) * _SCALES
        own = np.minimum(1.0, prior.own * _SHARES)
        self._tau = np.repeat(scales, len(own))
        self._own = np.tile(own, len(scales))
        unlikely = 0.5 * (np.log(_SCALES) / prior.spread) ** 2
        self._log_chance = np.subtract.outer(-unlikely, -np.log(_SHARE_WEIGHTS)).ravel()
        self._shared = 0.0
        self._single = np.zeros(len(self._names))
        self._done = 0.0
        self._fit(progress)

    def __call__(self, trained: Collection[str], steps: float) -> Outcome:
        """The loss after `steps` more steps in which `trained` train."""
        shared, single = self._after(trained, min(steps, self.useful_steps()))
        excess = self._excess(shared, single)
        return Outcome(self._floor + self._height * excess, self._chance)

    def means(self, trained: NDArray[np.bool_], steps: Array) -> Array:
        """Expected losses of many plans at many steps at once: `self(plan, steps).mean` for each.

        Args:
            trained: (P, U), whether plan p trains unit u, units in the problem's order.
            steps: (S,), in [0, inf).

        Returns:
            (P, S).

        Example:
            >>> from lightning_attnbal.core import FULL, Menu, Option
            >>> menu = Menu("head", (Option(level=FULL, cost=2, value=1),))
            >>> forecast = Forecast(Problem((menu,)), Progress(), 100, CurvePrior())
            >>> found = forecast.means(np.array([[True]]), np.array([0.0, 50.0]))
            >>> bool(np.isclose(found[0, 1], forecast({"head"}, 50.0).mean))
            True
        """
        useful, before = self.useful_steps(), self._worth(self._done)
        ahead = np.array([self._worth(self._done + min(s, useful)) - before for s in steps])
        found = np.empty((len(trained), len(steps)))
        level = float(self._chance @ self._floor)
        for start in range(0, len(trained), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            excess = self._excesses(trained[some].astype(float), ahead)
            found[some] = level + excess @ (self._chance * self._height)
        return found

    def _excesses(self, trains: Array, ahead: Array) -> Array:
        """(P, S, K) share of A that is left, for plans (P, U) after steps worth (S,)."""
        power, slow = self._prior.power, self._prior.slowness * self._tau
        shared = self._shared + self._speed(trains @ self._weights)[:, None] * ahead
        seen, group = np.unique(self._single, return_inverse=True)  # units trained as long
        member = (group[:, None] == np.arange(len(seen))) * self._weights[:, None]  # (U, G)
        moving = trains @ member  # (P, G)
        still = (member.sum(axis=0) - moving) @ (1 + seen[:, None] / slow) ** -power
        later = (1 + (seen[:, None] + ahead)[..., None] / slow) ** -power  # (G, S, K)
        return self._left(shared, np.einsum("pg,gsk->psk", moving, later) + still[:, None])

    def useful_steps(self) -> float:
        """Steps until the data was passed over as often as is believed to help."""
        return max(0.0, self._prior.passes * self._epoch - self._done) if self._wears else math.inf

    def _worth(self, steps: float) -> float:
        """What so many steps of the run are worth from its beginning, in steps on new data."""
        spread = _SPREAD_OF_PASSES * (self._prior.passes - 1) * self._epoch
        repeated = steps - self._epoch
        if not self._wears or repeated <= 0 or spread <= 0:
            return steps
        most = spread * float(gamma(1.25))
        return self._epoch + most * float(gammainc(0.25, (repeated / spread) ** 4))

    def _after(self, trained: Collection[str], steps: float) -> tuple[float, Array]:
        steps = self._worth(self._done + steps) - self._worth(self._done)
        trains = np.array([name in trained for name in self._names])
        speed = float(self._speed(self._weights[trains].sum()))
        return self._shared + steps * speed, self._single + steps * trains

    def _speed(self, held: Array) -> Array:
        """V of the shares of the contribution that what trains holds, of any shape."""
        share, square = np.square(held), self._prior.half**2
        found: Array = (1 + square) * share / (share + square) if square else np.ones_like(share)
        return found

    def _excess(self, shared: float, single: Array) -> Array:
        """(K,) share of A that is left."""
        slow = self._prior.slowness * self._tau[:, None]
        alone = (1 + single / slow) ** -self._prior.power @ self._weights
        return self._left(np.array(shared), alone)

    def _left(self, shared: Array, alone: Array) -> Array:
        """(..., K) share of A that is left, for steps X (...) and unit sums (..., K)."""
        common = (1 + shared[..., None] / self._tau) ** -self._prior.power
        left: Array = (1 - self._own) * common + self._own * alone**self._prior.order
        return left

    def _fit(self, progress: Progress) -> None:
        """Replay the run, then fit floor and A of each curve to the losses seen on the way."""
        seen, losses, sizes = [], [], []
        for segment in progress.segments:
            middle = self._after(segment.trained, segment.steps / 2)
            if math.isfinite(segment.loss):
                seen.append(self._excess(*middle))
                losses.append(segment.loss)
                sizes.append(self._worth(self._done + segment.steps) - self._worth(self._done))
            self._shared, self._single = self._after(segment.trained, segment.steps)
            self._done += segment.steps
        first = losses[0] if losses else 1.0
        unit = max([abs(first), *(1e-3 * abs(loss) for loss in losses)]) or 1.0
        self.unit = unit
        self._floor = np.full(len(self._tau), first - 0.7 * unit)
        self._height = np.full(len(self._tau), 0.7 * unit)
        if len(losses) > 1:
            self._weigh(np.array(seen), np.array(losses), np.array(sizes), unit)
        likely = np.exp(self._log_chance - self._log_chance.max())
        self._chance = likely / likely.sum()

    def _weigh(self, excess: Array, losses: Array, sizes: Array, unit: float) -> None:
        """Bayesian linear regression of the losses on (1, excess), for every curve.

        Prior N(0.3, 0.5²) and N(0.7, 0.5²) in units of the first loss for floor and A. Neither is
        negative, as more training is never worse; a loss that can be has its floor further down.
        """
        weights = np.sqrt(sizes / sizes.mean())
        target = losses / unit
        lowest = 0.0 if target.min() >= 0 else target.min() - 1
        prior = np.array([target[0] - 0.7 - lowest, 0.7])
        misfits = np.empty(excess.shape[1])
        for k in range(excess.shape[1]):
            design = np.stack([weights, excess[:, k] * weights], axis=1) / _NOISE
            rows = np.concatenate([design, np.eye(2) / 0.5])
            values = np.concatenate([(target - lowest) * weights / _NOISE, prior / 0.5])
            (floor, self._height[k]), misfit = nnls(rows, values)
            self._floor[k] = floor + lowest
            misfits[k] = misfit**2
        self._floor, self._height = self._floor * unit, self._height * unit
        noise = max(1.0, misfits.min() / max(1, len(losses) - 2))  # the curve is only a curve
        self._log_chance -= 0.5 * misfits / noise


def _contribution_shares(problem: Problem) -> Array:
    """(U,) each unit's share of the contribution, at the most its menu offers."""
    most = [max(0.0, *(option.value for option in menu.options)) for menu in problem.menus]
    values = np.array(most)
    total = values.sum()
    if total > 0:
        shares: Array = values / total
        return shares
    can = np.array([any(o.level.is_trained for o in m.options) for m in problem.menus], float)
    even: Array = can / max(1.0, can.sum())
    return even

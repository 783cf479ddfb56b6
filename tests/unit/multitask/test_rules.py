"""Share rules: what all of them keep, what each equals where it is something known."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_attnbal.multitask import (
    BanditShares,
    Bounded,
    GradNormShares,
    Proportional,
    RoundRobin,
    ShareRule,
    Stopping,
    TaskStatus,
    Temperature,
    Uncertainty,
    Uniform,
)

RULES = {
    "proportional": Proportional(),
    "uniform": Uniform(),
    "temperature": Temperature(3.0),
    "round-robin": RoundRobin(),
    "uncertainty": Uncertainty(),
    "gradnorm": GradNormShares(),
    "bandit": BanditShares(),
    "bounded": Bounded(rule=Proportional(), floors={"t0": 0.1}, caps={"t0": 0.4, "t1": 0.7}),
    "stopping": Stopping(rule=Uncertainty(), patience=2),
}
LOSS = st.one_of(st.floats(1e-3, 1e3), st.just(math.nan))


@st.composite
def tasks(draw):
    """Two to five statuses with names t0, t1, …"""
    return [
        TaskStatus(
            name=f"t{i}",
            num_batches=draw(st.integers(1, 10_000)),
            losses=tuple(draw(st.lists(LOSS, max_size=6))),
            batches=draw(st.integers(0, 30_000)),
            cost_per_batch=draw(st.floats(0.01, 100)),
            weight=draw(st.floats(0.1, 10)),
            is_done=draw(st.booleans()),
        )
        for i in range(draw(st.integers(2, 5)))
    ]


def status(name="a", **more):
    return TaskStatus(**{"name": name, "num_batches": 10, **more})


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@settings(max_examples=40, deadline=None)
@given(statuses=tasks())
def test_shares_sum_to_one_and_done_tasks_get_nothing(rule, statuses):
    shares = rule(statuses)
    assert list(shares) == [s.name for s in statuses]
    assert math.fsum(shares.values()) == pytest.approx(1, abs=1e-9)
    assert all(0 <= share <= 1 + 1e-9 for share in shares.values())
    still_open = [s for s in statuses if not s.is_done]
    if still_open and not isinstance(rule, Bounded):
        assert all(shares[s.name] == 0 for s in statuses if s.is_done)


@pytest.mark.parametrize("name", [name for name in RULES if name != "bounded"])
@settings(max_examples=30, deadline=None)
@given(statuses=tasks(), data=st.data())
def test_renaming_tasks_permutes_the_shares(name, statuses, data):
    order = data.draw(st.permutations(range(len(statuses))))
    renamed = [replace(statuses[i], name=f"t{k}") for k, i in enumerate(order)]
    before, after = RULES[name](statuses), RULES[name](renamed)
    for k, i in enumerate(order):
        assert after[f"t{k}"] == pytest.approx(before[f"t{i}"], abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Temperature(1), Proportional()),
        (Temperature(math.inf), Uniform()),
        (GradNormShares(alpha=0), Uniform()),
        (Bounded(rule=Proportional()), Proportional()),
        (Stopping(rule=Proportional(), patience=100), Proportional()),
    ],
    ids=["tau 1", "tau inf", "alpha 0", "no bounds", "patient"],
)
@settings(max_examples=30, deadline=None)
@given(statuses=tasks())
def test_degenerate_rules_equal_known_ones(one, other, statuses):
    assert one(statuses) == pytest.approx(other(statuses), abs=1e-9)


@pytest.mark.parametrize("rule", [Uncertainty(), GradNormShares(), BanditShares()], ids=str)
def test_rules_without_losses_are_uniform(rule):
    statuses = [status("a", num_batches=9), status("b", losses=(math.nan,))]
    assert rule(statuses) == Uniform()(statuses)


@settings(max_examples=100, deadline=None)
@given(statuses=tasks(), data=st.data())
def test_bounded_shares_are_the_nearest_within_the_bounds(statuses, data):
    statuses = [replace(s, is_done=False) for s in statuses]
    names = [s.name for s in statuses]
    floors = {n: data.draw(st.floats(0, 1 / len(names))) for n in names}
    caps = {n: data.draw(st.floats(floors[n], 1)) for n in names}
    assume(sum(caps.values()) >= 1)
    wanted, shares = (
        rule(statuses)
        for rule in (Proportional(), Bounded(rule=Proportional(), floors=floors, caps=caps))
    )
    assert all(floors[n] <= shares[n] <= caps[n] for n in names)
    moves = {n: shares[n] - wanted[n] for n in names}
    for down in names:
        for up in names:
            if shares[down] > floors[down] + 1e-9 and shares[up] < caps[up] - 1e-9:
                assert moves[down] <= moves[up] + 1e-9


def test_priorities_multiply_shares():
    statuses = [status("a"), status("b")]
    assert Bounded(rule=Uniform(), priorities={"a": 3})(statuses) == pytest.approx(
        {"a": 0.75, "b": 0.25}
    )


def test_a_done_task_gets_what_the_caps_of_others_leave():
    statuses = [status("a", is_done=True), status("b")]
    assert Bounded(rule=Uniform(), floors={"a": 0.3})(statuses) == pytest.approx({"a": 0, "b": 1})
    assert Bounded(rule=Uniform(), caps={"b": 0.8})(statuses) == pytest.approx({"a": 0.2, "b": 0.8})


def test_round_robin_is_proportional_over_a_pass():
    sizes, served = {"a": 60, "b": 20, "c": 10}, dict.fromkeys("abc", 0)
    for _ in range(sum(sizes.values())):
        shares = RoundRobin()(
            [TaskStatus(name=n, num_batches=k, batches=served[n]) for n, k in sizes.items()]
        )
        served[min(served, key=lambda n: (shares[n] == 0, served[n]))] += 1
    assert served == sizes


def test_uncertainty_is_weight_over_running_loss():
    statuses = [status("a", losses=(8.0, math.nan, 4.0), weight=3), status("b", losses=(2.0,))]
    assert Uncertainty(memory=0.5)(statuses) == pytest.approx({"a": 0.5, "b": 0.5})


def test_bandit_prefers_falling_per_cost_and_explores_the_rest():
    fast = status("a", losses=(2.0, 1.0, 0.5), batches=30)
    slow = status("b", losses=(2.0, 1.9, 1.8), batches=30)
    dear = replace(fast, name="c", cost_per_batch=100.0)
    greedy = BanditShares(c=0)([fast, slow, dear])
    assert greedy["a"] > greedy["b"] > greedy["c"]
    curious = BanditShares(c=1e6)([fast, slow, dear])
    assert curious == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=1e-2)
    fresh = BanditShares()([fast, slow, status("c")])
    assert fresh["c"] == fresh["a"]


def test_bandit_discount_forgets_what_paid_long_ago():
    once = status("a", losses=(9.0, 1.0, 1.0, 1.0), batches=40)
    now = status("b", losses=(2.0, 2.0, 2.0, 1.0), batches=40)
    assert BanditShares(c=0, discount=1)([once, now])["a"] > 0.8
    assert BanditShares(c=0, discount=0.1)([once, now])["b"] > 0.8


STUCK = (1.0,) * 4


@pytest.mark.parametrize(
    ("losses", "is_aside"),
    [
        ((), False),
        ((math.nan,) * 9, False),
        ((1.0, 0.9, 0.8, 0.7), False),
        ((1.0, 1.0, 1.0), False),
        (STUCK, True),
        ((*STUCK, math.nan), True),
        ((*STUCK, 1.04), True),
        ((*STUCK, 1.06), False),
        ((*STUCK, 0.5), False),
        ((0.0, 0.0, 0.0, 0.0), True),
        ((-1.0, -1.5, -2.0, -2.5), False),
    ],
)
def test_tasks_are_put_aside_when_they_stop_learning(losses, is_aside):
    assert Stopping(rule=Uniform()).is_aside(status(losses=losses)) is is_aside


def test_a_task_aside_is_tried_again_after_a_rest():
    rule = Stopping(rule=Uniform(), patience=1, rest=3)
    aside = [rule.is_aside(status(losses=(1.0, *[math.nan] * n))) for n in range(10)]
    assert aside == [False, True, True, True, False, True, True, True, False, True]


def test_a_task_aside_gets_the_floor_and_the_rest_goes_to_the_others():
    statuses = [status("a", losses=STUCK), status("b", num_batches=30), status("c")]
    shares = Stopping(rule=Proportional(), floor=0.04)(statuses)
    assert shares == pytest.approx({"a": 0.04, "b": 0.72, "c": 0.24})
    alone = [replace(s, losses=STUCK) for s in statuses]
    assert Stopping(rule=Proportional())(alone) == Proportional()(alone)


class Greedy(ShareRule):
    """A faulty rule of one's own."""

    def shares(self, statuses):
        return {s.name: 1.0 for s in statuses}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Uniform()([]), "`statuses` of one or more different tasks"),
        (lambda: Uniform()([status(), status()]), "`statuses` of one or more different tasks"),
        (lambda: Greedy()([status("a"), status("b")]), "shares of Greedy to be in .0, 1. with sum"),
        (lambda: Temperature(0), "`tau` to be in"),
        (lambda: Uncertainty(memory=1), "`memory` to be in"),
        (lambda: GradNormShares(alpha=-1), "`alpha` to be in"),
        (lambda: BanditShares(c=-1), "`c` to be in"),
        (lambda: BanditShares(discount=0), "`discount` to be in"),
        (lambda: Bounded(rule=Uniform(), floors={"a": 0.6, "b": 0.6}), "`floors` to sum to at mos"),
        (lambda: Bounded(rule=Uniform(), floors={"a": 0.6}, caps={"a": 0.2}), r"`caps\['a'\]` to"),
        (lambda: Bounded(rule=Uniform(), priorities={"a": 0}), r"`priorities\['a'\]` to be in"),
        (lambda: Bounded(rule=Uniform(), caps={"a": 0.5})([status()]), "`caps` to sum to at least"),
        (lambda: Bounded(rule=Uniform(), floors={"x": 0.1})([status()]), "tasks among a, but got"),
        (lambda: Stopping(rule=Uniform(), patience=0), "`patience` to be in"),
        (lambda: Stopping(rule=Uniform(), rest=0), "`rest` to be in"),
        (lambda: status(num_batches=0), "`num_batches` to be in"),
        (lambda: status(cost_per_batch=0), "`cost_per_batch` to be in"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

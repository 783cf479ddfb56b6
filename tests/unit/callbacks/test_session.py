"""The model's half of a run, and the run itself, without a Trainer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_attnbal.allocate import FrontierAllocator, FullAllocator
from lightning_attnbal.callbacks._ledger import Ledger
from lightning_attnbal.callbacks._run import Run
from lightning_attnbal.callbacks._session import Session
from lightning_attnbal.callbacks._timing import StepClock
from lightning_attnbal.core import (
    DETACHED,
    FROZEN,
    FULL,
    Budget,
    Dimension,
    Plan,
    UnsupportedModelError,
)
from lightning_attnbal.measure import discover_units

LEVELS = (FROZEN, DETACHED, FULL)


def make_session(levels=LEVELS) -> Session:
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    model = nn.Sequential(nn.Embedding(20, 16), encoder, nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Session(model, discover_units(model), [optimizer], levels)


def tokens(length: int = 5) -> Tensor:
    return torch.randint(0, 20, (4, length), generator=torch.Generator().manual_seed(length))


def step(session: Session, batch: Tensor) -> None:
    """One training step, as the callback drives it."""
    (optimizer,) = session.optimizers
    optimizer.zero_grad()
    session.begin_batch(batch)
    loss = session.model(batch).square().mean()
    session.end_forward(loss)
    loss.backward()
    session.worth.before_step(is_sampled=True)
    optimizer.step()


def plan_of(session: Session, *levels: str) -> Plan:
    return Plan(dict(zip((u.name for u in session.units), levels, strict=True)))


@pytest.mark.parametrize(
    "levels",
    [
        ("frozen", "frozen", "frozen", "full", "full"),
        ("full", "detached", "detached", "full", "full"),
    ],
    ids=["frozen", "detached"],
)
def test_costs_of_a_new_shape_do_not_depend_on_the_plan_in_force(levels):
    expected = make_session()
    for length in (5, 7):
        step(expected, tokens(length))
    session = make_session()
    step(session, tokens(5))
    session.apply(plan_of(session, *levels))
    step(session, tokens(7))
    for shape in expected.shapes._shapes:
        for mine, theirs in zip(
            session.shapes._shapes[shape][0], expected.shapes._shapes[shape][0], strict=True
        ):
            assert mine.flops == theirs.flops, mine.unit.name


def test_estimates_of_frozen_units_age_with_those_that_train():
    session = make_session()
    step(session, tokens())
    session.worth.after_step()
    session.worth.before_step(is_sampled=False)  # the gradients are still there
    before = session.values()
    session.apply(plan_of(session, "frozen", "frozen", "frozen", "full", "full"))
    session.model[2].weight.data *= 0.1
    for _ in range(2):
        step(session, tokens())
        session.worth.after_step()
    after = session.values()
    fall = (after["1.layers.2"] + after["head"]) / (before["1.layers.2"] + before["head"])
    assert fall < 0.9
    assert after["1.layers.0"] == pytest.approx(fall * before["1.layers.0"])


def test_what_was_measured_as_nothing_is_still_worth_training_where_there_is_budget(monkeypatch):
    session = make_session()
    step(session, tokens())
    found = {unit.name: 0.0 for unit in session.units} | {"head": 2.0}
    monkeypatch.setattr(session, "values", lambda: found)
    menus = session.problem(Dimension.FLOP, 1).menus
    worth = {menu.unit: max(option.value for option in menu.options) for menu in menus}
    assert worth.pop("head") == 2.0
    assert list(worth.values()) == pytest.approx([0.01 * 2.0 / len(found)] * len(worth))


def test_model_without_a_trainable_parameter_is_refused():
    model = nn.Sequential(nn.Linear(2, 2)).requires_grad_(False)
    with pytest.raises(UnsupportedModelError, match="requires_grad"):
        Session(model, discover_units(model), [], LEVELS)


def test_state_of_another_model_is_refused():
    session = make_session()
    step(session, tokens())
    session.end_batch()
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    other = Session(
        model, discover_units(model), [torch.optim.SGD(model.parameters(), lr=0.1)], LEVELS
    )
    with pytest.raises(ValueError, match=r"units of the checkpoint.*1\.layers\.0"):
        other.load_state_dict(session.state_dict())


class Time:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("budget", "validation"), [("30 s", 0.0), ("100 s", 0.0), ("100 s", 7.0)])
@pytest.mark.parametrize("allocator", [FrontierAllocator(), FullAllocator()], ids=["ours", "full"])
def test_time_budget_ends_within_a_step_and_keeps_room_for_validation(
    budget, validation, allocator
):
    time = Time()
    session = make_session((FROZEN, FULL))
    run = Run(
        ledger=Ledger(budget=Budget.parse(budget), full_batches=None),
        session=session,
        clock=StepClock(now=time),
        allocator=allocator,
        calibration_steps=4,
    )
    run.clock.start()
    run.clock.begin_validation()
    time.now += validation
    run.clock.end_validation(seen=1, whole=1)
    longest = 0.0
    while not run.finished:
        step(session, tokens())
        trained = len(session.plan.trained) if session.plan else 5
        longest = max(longest, 0.1 + 0.1 * trained)
        time.now += 0.1 + 0.1 * trained
        run.end_batch(stepped=True, epoch=0)
        assert 0 <= run.progress <= 1
    assert run.progress == 1
    limit = run.ledger.limit.amount
    assert limit - validation - 2 * longest <= time.now <= limit - validation + 1e-9


def test_run_spends_a_flop_budget_to_the_last_affordable_step():
    session = make_session((FROZEN, FULL))
    run = Run(
        ledger=Ledger(budget=Budget.parse("40%"), full_batches=200),
        session=session,
        clock=StepClock(now=Time()),
        allocator=FrontierAllocator(),
        calibration_steps=3,
    )
    run.clock.start()
    steps = 0
    while not run.finished and steps < 200:
        step(session, tokens(5 + steps % 3))
        run.end_batch(stepped=True, epoch=0)
        steps += 1
    share = run.ledger.spent / run.ledger.limit
    assert 0.985 <= share <= 1
    assert run.dimension is Dimension.FLOP
    session.close()
    assert all(p.requires_grad for p in session.model.parameters())


def timed_run(session: Session, time: Time) -> Run:
    run = Run(
        ledger=Ledger(budget=Budget.parse("100 s"), full_batches=None),
        session=session,
        clock=StepClock(now=time),
        allocator=FrontierAllocator(),
        calibration_steps=4,
    )
    run.clock.start()
    return run


@pytest.mark.parametrize("num_steps", [2, 6], ids=["while calibrating", "after the decision"])
def test_time_budget_resumes(num_steps):
    time = Time()
    run = timed_run(make_session((FROZEN, FULL)), time)
    for _ in range(num_steps):
        step(run.session, tokens())
        time.now += 1.0
        run.end_batch(stepped=True, epoch=0)
    state = run.state_dict()
    resumed = timed_run(make_session((FROZEN, FULL)), time)
    resumed.load_state_dict(state)
    assert resumed.ledger.spent == run.ledger.spent
    assert [d.plan for d in resumed.history] == [d.plan for d in run.history]
    assert resumed.session.plan == run.session.plan
    while not resumed.finished:
        step(resumed.session, tokens())
        time.now += 1.0
        resumed.end_batch(stepped=True, epoch=0)
    assert 97 <= resumed.ledger.spent.amount <= 100

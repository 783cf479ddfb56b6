"""What a budget buys, against the frontier, the forecast and the allocator it is made of."""

from __future__ import annotations

import io
import json
import math

import pytest
import torch
from matplotlib.colors import to_hex
from rich.console import Console
from torch import nn

from lightning_attnbal.allocate import InfeasibleMemoryError
from lightning_attnbal.core import CACHED, FROZEN, Dimension, InfeasibleBudgetError, Quantity
from lightning_attnbal.measure import profile
from lightning_attnbal.planning import forecast_plans, plot_outlook
from lightning_attnbal.planning._contributions import halves


class Stack(nn.Module):
    """Six equal blocks and a head; weights that look trained."""

    def __init__(self, depth: int = 6, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth)
        )
        self.head = nn.Linear(width, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def sample(size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 16, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def look(budgets=("25%",), model=None, **settings):
    settings = {"steps_per_epoch": 40, "epochs": 5, "forward": loss, "pretrained": True, **settings}
    return forecast_plans(model or Stack(), sample(), budgets=budgets, **settings)


@pytest.fixture(scope="module")
def report():
    return look(("10%", "25%", "50%", "100%"))


def test_costs_are_those_of_the_profile_and_the_budget_is_a_share(report):
    full = profile(Stack(), sample(), forward=loss, seconds=False).flops.amount
    for outlook, share in zip(report.outlooks, (0.1, 0.25, 0.5, 1.0), strict=True):
        assert outlook.full_step == pytest.approx(full)
        assert outlook.limit.amount == pytest.approx(share * full * 200)
        assert outlook.points[-1].share == outlook.points[-1].share_uncached == 1.0


def test_steps_are_what_calibration_leaves(report):
    for outlook in report.outlooks:
        full = outlook.points[-1].plan.num_steps
        affordable = outlook.limit.amount / outlook.full_step
        calibration = max(1, min(4, math.floor(0.05 * affordable)))
        assert outlook.calibration_steps == calibration
        assert full == math.floor(affordable + 1e-9) - calibration


def test_points_run_from_the_cheapest_to_the_most_valuable(report):
    for outlook in report.outlooks:
        values = [point.plan.value for point in outlook.points]
        assert values == sorted(values)
        assert all(p.plan.num_steps <= 200 for p in outlook.points)
        assert all(p.share <= p.share_uncached <= 1.0 for p in outlook.points)


def test_the_best_point_is_the_lowest_that_may_be_chosen(report):
    for outlook in report.outlooks:
        open_points = [point for point in outlook.points if point.is_open]
        assert outlook.points[outlook.best].loss == min(point.loss for point in open_points)
        gain = outlook.points[-1].loss - outlook.points[outlook.best].loss
        assert outlook.gain[0] == pytest.approx(gain)


def test_more_budget_is_never_forecast_to_end_worse(report):
    ends = [outlook.points[outlook.best].loss for outlook in report.outlooks]
    assert ends == sorted(ends, reverse=True)


def test_a_head_that_is_new_is_in_every_plan_that_may_be_chosen(report):
    assert report.fresh == ("head",)
    for outlook in report.outlooks:
        assert all(p.plan["head"].is_trained for p in outlook.points if p.is_open)
        assert outlook.begin["head"].is_trained


def test_one_point_per_depth_and_always_the_best_and_the_first(report):
    for outlook in report.outlooks:
        shown = outlook.by_depth()
        assert {point.depth for point in shown} == {point.depth for point in outlook.points}
        assert any(point is outlook.points[outlook.best] for point in shown)
        assert any(outlook.is_first(point) for point in shown)


def test_a_whole_budget_is_left_alone(report):
    outlook = report.outlooks[-1]
    assert outlook.is_whole
    assert set(outlook.begin.trained) == set(outlook.begin)
    assert outlook.verdict.startswith("All of the full run: it is left as it is")


def test_from_scratch_nothing_is_frozen_and_no_gain_is_promised():
    report = look(("10%", "50%"), pretrained=False)
    assert set(report.fresh) == set(report.values)
    for outlook in report.outlooks:
        assert outlook.verdict == "No gain expected: full training for fewer steps."
        assert outlook.begin.trained == outlook.points[-1].plan.trained
    assert any("a run from scratch" in note for note in report.notes)


def test_new_weights_are_seen():
    new = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    assert look(model=new, pretrained=None).fresh == ("0", "head")
    assert look(pretrained=None).fresh == ()


def test_contributions_are_measured_with_a_loss_and_equal_without():
    measured, equal = look(), look(forward=lambda model, batch: model(batch[0]))
    assert measured.source == "measured on two batches"
    assert len(set(measured.values.values())) == len(measured.values)
    assert measured.loss == pytest.approx(loss(Stack(), sample()).item())
    assert set(equal.values.values()) == {1.0}
    assert "a tensor of shape (16, 3), no loss" in equal.source
    assert math.isnan(equal.loss)
    assert any("shares of the first loss" in note for note in equal.notes)


def test_a_second_batch_stands_in_for_the_halves():
    batch = sample()
    first, second = ([t[rows] for t in batch] for rows in (slice(0, 16), slice(16, 32)))
    halved = look().values
    settings = {"steps_per_epoch": 40, "epochs": 5, "forward": loss, "pretrained": True}
    paired = forecast_plans(Stack(), first, second_batch=second, **settings).values
    assert paired == halved


@pytest.mark.parametrize("size", [1, 2, 5])
def test_halves_share_what_is_no_sample(size):
    batch = {"x": torch.arange(size), "y": [torch.ones(size, 3)], "k": torch.tensor(2.0), "t": "a"}
    found = halves(batch)
    if size == 1:
        assert found is None
        return
    first, second = found
    assert len(first["x"]) == len(second["x"]) == size // 2
    assert not set(first["x"].tolist()) & set(second["x"].tolist())
    assert first["y"][0].shape == (size // 2, 3)
    assert first["k"] == second["k"] == 2.0
    assert first["t"] == "a"


def test_a_single_sample_has_no_halves():
    x, y = sample()
    found = forecast_plans(Stack(), (x[:1], y[:1]), steps_per_epoch=9, epochs=2, forward=loss)
    assert found.source == "equal for all units: a single sample has no halves"


def test_nothing_is_left_on_the_model():
    model = Stack()
    model.blocks[0].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = look(model=model)
    assert torch.equal(torch.get_rng_state(), state)
    assert "blocks.0" not in found.values
    assert all(point.plan["blocks.0"] in {FROZEN, CACHED} for point in found.outlooks[0].points)
    assert [p.requires_grad for p in model.blocks[0].parameters()] == [False, False]
    assert all(p.requires_grad for p in model.head.parameters())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_levels_that_are_asked_for_are_the_ones_that_are_planned():
    found = look(levels=("frozen", "full"))
    assert all(CACHED not in p.plan.values() for p in found.outlooks[0].points)
    assert any(CACHED in p.plan.values() for p in look().outlooks[0].points)


def test_time_budget_counts_seconds():
    found = look(("20s", "50%"))
    timed, counted = found.outlooks
    assert timed.limit == Quantity(20.0, Dimension.SECOND)
    assert 0 < timed.full_step < 1.0
    assert counted.limit.dimension is Dimension.FLOP
    assert any("without loading data" in note for note in found.notes)


def test_memory_limits_the_plans():
    unlimited = look(("50%",)).outlooks[0]
    tight = look(("50%",), memory="20KiB").outlooks[0]
    assert len(tight.points) < len(unlimited.points)
    assert tight.gain is None
    assert tight.verdict.startswith("Full training does not fit the memory")
    with pytest.raises(InfeasibleMemoryError, match="`memory` to be at least"):
        look(("50%",), memory="1KiB")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"budgets": ["25%", "200 FLOP"]}, InfeasibleBudgetError, "from 200 FLOP"),
        ({"budgets": ["150%"]}, ValueError, r"`budget` to be in \(0, 1\]"),
        ({"budgets": ["a lot"]}, ValueError, "`budget` to be a number with a unit"),
        ({"steps_per_epoch": 0}, ValueError, r"`steps_per_epoch` to be in \[1, inf\)"),
        ({"epochs": 0}, ValueError, r"`epochs` to be in \[1, inf\)"),
        ({"levels": ["half"]}, ValueError, "`level` to be one of"),
    ],
    ids=["no step", "more than all", "no budget", "no steps", "no epochs", "no level"],
)
def test_bad_input(settings, error, message):
    with pytest.raises(error, match=message):
        look(**settings)


def test_nothing_may_train():
    with pytest.raises(ValueError, match="to have a trainable parameter"):
        look(model=Stack().requires_grad_(False))


def test_plain_data_survives_json(report):
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [b["budget"].split()[0] for b in data["budgets"]] == ["10%", "25%", "50%", "100%"]
    first = data["budgets"][0]
    assert first["points"][first["best"]]["plan"]["forecast"][0] > 0
    assert first["begin"]["num_steps"] > 0


def rendered(report, *, terminal):
    console = Console(width=140, force_terminal=terminal, file=io.StringIO())
    console.print(report)
    return console.file.getvalue()


def test_table_is_plain_unless_somebody_looks(report):
    plain, rich = rendered(report, terminal=False), rendered(report, terminal=True)
    assert "─" not in plain
    assert "\x1b[" not in plain
    assert "─" in rich
    assert "\x1b[" in rich
    assert plain.count("★") == len(report.outlooks) + 1
    for outlook in report.outlooks:
        assert outlook.verdict in plain


def test_picture_has_a_line_per_budget_and_a_ring_at_the_chosen_point(report, tmp_path):
    path = tmp_path / "forecast.png"
    ax = plot_outlook(report, path).axes[0]
    assert path.read_bytes().startswith(b"\x89PNG")
    lines = [bars.lines[0] for bars in ax.containers]
    assert len(lines) == len(report.outlooks)
    assert len({to_hex(line.get_color()) for line in lines}) == len(lines)
    rings = [line for line in ax.lines if line.get_markersize() == 13]
    for ring, outlook in zip(rings, report.outlooks, strict=True):
        assert ring.get_ydata()[0] == outlook.points[outlook.best].loss

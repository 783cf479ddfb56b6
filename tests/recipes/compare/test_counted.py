"""The budget of the peers: what it counts, where it stops, and that it changes nothing."""

import math

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_attnbal.core import FROZEN, FULL
from lightning_attnbal.measure import plan_cost, profile
from recipes.benchmarks.compare._step_costs import BatchClock, CostKey, StepCosts
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods import Full, LinearProbe
from recipes.text import TextClassifier
from tests.integration.tiny import Classifier
from tests.recipes.compare.tiny import BATCH, CLASSES, Watch, batches, encoder_folder, fit


class ConvClassifier(pl.LightningModule):
    """Convolutions and batch statistics, which other kernels would round differently."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(w, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
                for w in (3, 8, 8)
            )
        )
        self.head = nn.Linear(8, CLASSES)

    def training_step(self, batch, batch_idx):
        hidden = self.body(batch["image"]).mean((2, 3))
        return {"loss": nn.functional.cross_entropy(self.head(hidden), batch["labels"])}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def images():
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randn(BATCH, 3, size, size, generator=generator),
            "labels": torch.randint(0, CLASSES, (BATCH,), generator=generator),
        }
        for size in (8, 9, 8, 8)
    ]


def attention_data():
    generator = torch.Generator().manual_seed(0)
    return [
        [torch.randint(0, 20, (BATCH, n), generator=generator), torch.arange(BATCH) % CLASSES]
        for n in (5, 6, 5)
    ]


@pytest.fixture
def make(tmp_path):
    """By kind: a fresh module and its batches."""
    encoder = encoder_folder(tmp_path / "encoder")
    makers = {
        "bert with dropout": lambda: (TextClassifier(encoder, CLASSES, lr=1e-2), batches()),
        "fused attention": lambda: (Classifier(dropout=0.1), attention_data()),
        "convolutions": lambda: (ConvClassifier(), images()),
    }

    def build(kind):
        torch.manual_seed(0)
        return makers[kind]()

    return build


@pytest.mark.parametrize("kind", ["bert with dropout", "fused attention", "convolutions"])
def test_an_endless_budget_at_a_constant_rate_is_plain_lightning_bit_for_bit(tmp_path, make, kind):
    states = []
    for budget in (None, CountedBudget(math.inf, schedule="constant")):
        module, data = make(kind)
        fit(tmp_path, Full(), budget, module=module, data=data, max_epochs=2)
        states.append(module.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert budget.spent > 0
    assert budget.num_steps == 2 * len(data)


@pytest.mark.parametrize("kind", ["bert with dropout", "convolutions"])
def test_a_full_step_costs_what_our_own_profile_says(tmp_path, make, kind):
    module, data = make(kind)
    budget = CountedBudget(math.inf)
    fit(tmp_path, Full(), budget, module=module, data=data[:1], max_epochs=1)
    (counted,) = budget.costs.known.values()
    report = profile(module, data[0], forward=_loss, seconds=False)
    assert counted == pytest.approx(report.flops.amount, rel=0.01)
    assert budget.spent == counted


def test_a_probe_step_costs_what_our_plan_of_it_does(tmp_path, make):
    module, data = make("bert with dropout")
    budget = CountedBudget(math.inf)
    fit(tmp_path, LinearProbe(), budget, module=module, data=data[:1], max_epochs=1)
    report = profile(module, data[0], forward=_loss, seconds=False)
    levels = [FROZEN] * (len(report.loads) - 1) + [FULL]
    assert budget.spent == pytest.approx(plan_cost(report.loads, levels), rel=0.01)


def _loss(module, batch):
    if isinstance(module, TextClassifier):
        logits = module(batch["input_ids"], batch["attention_mask"])
        return nn.functional.cross_entropy(logits, batch["labels"])
    return module.training_step(batch, 0)["loss"]


def test_each_kind_of_step_is_counted_once(tmp_path):
    budget = CountedBudget(math.inf)
    fit(tmp_path, Full(), budget, data=batches(8), max_epochs=2)
    small, large = sorted(budget.costs.known.values())
    assert budget.spent == 12 * small + 4 * large


def test_the_rate_falls_to_zero_with_the_budget(tmp_path):
    budget, watch = CountedBudget(5e7, warmup=0.2), Watch()
    fit(tmp_path, Full(), budget, callbacks=(watch,))
    rates = [rate for (rate,) in watch.rates]
    largest_step = max(budget.costs.known.values()) / budget.limit_flops
    assert rates[0] == 0
    assert max(rates) == pytest.approx(1e-2, rel=0.2)
    assert rates[-1] < 2 * 1e-2 * largest_step / (1 - 0.2)
    assert budget.limit_flops * (1 - 2 * largest_step) < budget.spent <= budget.limit_flops


def test_a_larger_batch_at_the_end_does_not_exceed_the_limit(tmp_path):
    plain = batches(9, lengths=(8,))
    cost = CountedBudget(math.inf)
    fit(tmp_path, Full(), cost, data=plain[:1], max_epochs=1)
    data = [*plain, *batches(4, lengths=(40,))]
    budget = CountedBudget(12 * cost.spent)
    fit(tmp_path, Full(), budget, data=data)
    assert budget.num_steps == 9
    assert budget.spent == 9 * cost.spent


def test_a_limit_below_one_step_is_refused_before_anything_moves(tmp_path):
    watch = Watch()
    with pytest.raises(ValueError, match=r"Expected `limit_flops` to be at least .*, but got 1000"):
        fit(tmp_path, Full(), CountedBudget(1e3), callbacks=(watch,))
    assert watch.moved == []


def test_charges_are_spent_and_must_fit(tmp_path):
    budget = CountedBudget(100.0)
    budget.charge(60.0)
    assert (budget.spent, budget.charged, budget.progress) == (60.0, 60.0, 0.6)
    assert budget.can_afford(40.0)
    with pytest.raises(ValueError, match=r"Expected `flops` to be in \[0, 40\]"):
        budget.charge(41.0)


def test_a_second_fit_starts_afresh(tmp_path):
    budget = CountedBudget(1e7)
    for _ in range(2):
        fit(tmp_path, Full(), budget)
        figures = budget.summary()
        figures.pop("cpu_seconds")
        assert figures["num_steps"] == figures["num_batches"]
    fresh = CountedBudget(1e7)
    fit(tmp_path, Full(), fresh)
    assert figures == {k: v for k, v in fresh.summary().items() if k != "cpu_seconds"}


def test_the_users_own_batch_hook_still_runs(tmp_path):
    class Counting(TextClassifier):
        calls = 0

        def on_train_batch_start(self, batch, batch_idx):
            self.calls += 1

    module = Counting(encoder_folder(tmp_path / "encoder"), CLASSES)
    budget = CountedBudget(1e7)
    fit(tmp_path, Full(), budget, module=module)
    assert module.calls == budget.num_steps
    assert "on_train_batch_start" not in vars(module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 2}, "`accumulate_grad_batches` to be 1, but got 2"),
        ({"min_epochs": 2}, "`min_epochs` to be 0, but got 2"),
        ({"callbacks": (CountedBudget(1e9),)}, "CountedBudget callbacks` to be 1, but got 2"),
    ],
    ids=["accumulation", "minimum", "two budgets"],
)
def test_what_cannot_be_accounted_for_is_refused(tmp_path, options, message):
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, Full(), CountedBudget(1e8), **options)


def test_the_modules_own_schedulers_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="without learning-rate schedulers"):
        fit(
            tmp_path,
            Full(),
            CountedBudget(1e9),
            module=Classifier(scheduler="epoch"),
            data=attention_data(),
            max_epochs=1,
        )


@pytest.mark.parametrize("value", [0, -1.0, math.nan])
def test_a_limit_is_positive(value):
    with pytest.raises(ValueError, match=r"`limit_flops` to be in \(0, inf\)"):
        CountedBudget(value)


def test_bounds_follow_the_dearest_step_seen():
    costs = StepCosts()
    assert costs.bound(((4, 8),)) == 0.0
    costs.add(CostKey(((4, 8),), frozenset("a"), None), forward=10.0, total=80.0)
    costs.add(CostKey(((4, 4),), frozenset("a"), None), forward=6.0, total=18.0)
    assert costs.bound(((4, 8),)) == 80.0
    assert costs.bound(((4, 4),)) == 48.0
    assert costs.bound(((4, 16),)) == 768.0  # twice the larger is four times the smaller


def test_the_clock_replaces_what_counting_took(monkeypatch):
    ticks = iter([0.0, 0.0, 9.0, 10.0, 12.0, 20.0, 22.0])
    monkeypatch.setattr("time.process_time", lambda: next(ticks))
    clock = BatchClock()
    flops = 0.0
    for was_counted in (True, False, False):
        clock.start(flops)
        flops += 5.0
        clock.stop(flops, was_counted=was_counted)
    assert clock.seconds == 6.0

"""The metric that a user wants of a task, logged in validation, as what its steps gain."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from lightning_attnbal.callbacks import AttentionBalancer, TaskSettings
from lightning_attnbal.tracking import SharesDecided
from tests.integration.tasks_run import BATCH, TwoHeads, fit, loaders, trained_before

pytestmark = pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers")
BEFORE = 3  # decisions before three validations were seen


class Scored(TwoHeads):
    """Logs each task's likelihood and loss in validation, a thousand of them."""

    def __init__(self) -> None:
        super().__init__()
        names = ("short/likelihood", "long/likelihood", "short/worse", "long/worse")
        self.scores = nn.ModuleDict({name: MeanMetric() for name in names})

    def val_dataloader(self):
        return [DataLoader(loader.dataset, BATCH) for loader in loaders(length=6).values()]

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        task = ("short", "long")[dataloader_idx]
        logits = self.heads[task](self.encoder(self.embedding(batch[0])).mean(1))
        loss = nn.functional.cross_entropy(logits, batch[1])
        for name, value in (("likelihood", torch.exp(-loss)), ("worse", loss)):
            score = self.scores[f"{task}/{name}"]
            score.update(1000 * value)
            self.log(f"{task}/{name}", score, add_dataloader_idx=False)


def decided(tmp_path, **metrics):
    """Share of the short task at each decision."""
    balancer = AttentionBalancer("60%", tasks=TaskSettings(metrics=metrics))
    seed_everything(0, verbose=False)
    fit(tmp_path, balancer, model=trained_before(Scored()), data=loaders(length=6), max_epochs=8)
    return [e.shares["short"] for e in balancer.events if isinstance(e, SharesDecided)]


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    return decided(tmp_path_factory.mktemp("without"))


@pytest.mark.parametrize(
    ("task", "metric", "direction", "share"),
    [("short", "likelihood", "max", 0.8), ("long", "worse", "min", 0.3)],
)
def test_gains_count_in_the_metric_once_validations_have_been_seen(
    tmp_path, without, task, metric, direction, share
):
    shares = decided(tmp_path, **{task: (f"{task}/{metric}", direction)})
    assert shares[:BEFORE] == without[:BEFORE]
    assert shares[-1] == share, "as far as its bounds allow"
    assert 0.3 < without[-1] < 0.8


def test_a_misspelt_metric_is_said_once(tmp_path):
    tasks = TaskSettings(metrics={"short": ("short/like", "max")})
    balancer = AttentionBalancer("60%", tasks=tasks)
    with pytest.warns(UserWarning, match="no finite 'short/like'.*short/likelihood") as said:
        fit(tmp_path, balancer, model=Scored(), data=loaders(length=6))
    assert sum("no finite" in str(warning.message) for warning in said) == 1


def test_a_metric_that_falls_with_the_loss_is_no_gain(tmp_path, without):
    assert decided(tmp_path, short=("short/worse", "max")) == without

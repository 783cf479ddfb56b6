"""Runs that train what they say, and runs that do not."""

import lightning.pytorch as pl
import pytest
import torch

from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.engagement import Engagement
from recipes.benchmarks.compare.methods import LISA, Full, LastK
from tests.recipes.compare.tiny import LIMIT, fit


class Meddler(pl.Callback):
    """Changes a frozen parameter, or undoes what moved one, after each step."""

    def __init__(self, name, undoes):
        self.name, self.undoes = name, undoes

    def on_train_start(self, trainer, module):
        self.parameter = dict(module.named_parameters())[self.name]
        self.before = self.parameter.detach().clone()

    @torch.no_grad()
    def on_train_batch_end(self, *_):
        if self.undoes:
            self.parameter.copy_(self.before)
        else:
            self.parameter.add_(0.1)


def run(folder, method, *callbacks):
    engagement = Engagement()
    module = fit(folder, method, CountedBudget(LIMIT), callbacks=(*callbacks, engagement))
    return engagement, module


@pytest.mark.parametrize(
    ("method", "stretches"), [(Full(), (1, 1)), (LastK(k=1), (1, 1)), (LISA(period=2), (2, 99))]
)
def test_methods_train_what_they_say(tmp_path, method, stretches):
    engagement, _ = run(tmp_path, method)
    found = engagement.report()
    assert (found["idle"], found["leaked"]) == ([], [])
    assert stretches[0] <= found["stretches"] <= stretches[1]


def test_a_frozen_parameter_that_moves_is_named(tmp_path):
    engagement, _ = run(tmp_path, LastK(k=1), Meddler(embedding(tmp_path), undoes=False))
    assert engagement.leaked == {embedding(tmp_path)}
    assert not engagement.idle


def test_a_parameter_that_should_move_and_does_not_is_named(tmp_path):
    engagement, _ = run(tmp_path, Full(), Meddler(embedding(tmp_path), undoes=True))
    assert engagement.idle == {embedding(tmp_path)}
    assert not engagement.leaked


def embedding(folder):
    """The name of the word embeddings' weight."""
    _, module = run(folder, Full())
    (name,) = (n for n, _ in module.named_parameters() if n.endswith("word_embeddings.weight"))
    return name

"""A full budget is plain Lightning, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_attnbal.callbacks import AttentionBalancer
from tests.integration.tiny import Classifier, fit, same, weights

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"model": {"dropout": 0.2}},
    "step_scheduler": {"model": {"scheduler": "step"}},
    "epoch_scheduler": {"model": {"scheduler": "epoch"}},
    "onecycle": {"model": {"scheduler": "onecycle"}},
    "accumulation_and_clipping": {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1},
    "bf16_mixed": {"precision": "bf16-mixed"},
    "limited_batches": {"limit_train_batches": 7},
}


@pytest.mark.parametrize("case", CASES)
def test_full_budget_is_bit_equal_to_no_callback(tmp_path, case):
    options = dict(CASES[case])
    model_options = options.pop("model", {})
    runs = {}
    for name, balancer in (("plain", None), ("balanced", AttentionBalancer(budget="100%"))):
        torch.manual_seed(0)
        model, _ = fit(tmp_path / name, balancer, model=Classifier(**model_options), **options)
        runs[name] = (weights(model), model.rates)
    assert same(runs["plain"][0], runs["balanced"][0])
    assert runs["plain"][1] == runs["balanced"][1]


def test_full_budget_spends_the_reference(tmp_path):
    balancer = AttentionBalancer(budget=1.0)
    fit(tmp_path, balancer)
    assert balancer.spent.amount == pytest.approx(balancer.reference.amount, rel=1e-9)
    assert set(map(str, balancer.plan.values())) == {"full"}

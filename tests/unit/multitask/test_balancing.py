"""Losses and gradients balanced by TorchJD: values, memory, resume, and what is refused."""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchjd.aggregation
import torchjd.scalarization
from torch import nn

from lightning_attnbal.multitask import LossBalancer, jacobian_backward, make_aggregator
from lightning_attnbal.multitask import _balancing as module
from lightning_attnbal.multitask._balancing import SCALARIZERS
from lightning_attnbal.multitask._gradients import AGGREGATORS
from lightning_attnbal.multitask._torchjd import NonNegativeProjector
from tests.unit.measure.contribution.twins import bits

TASKS = ["a", "b"]
SETTINGS = {
    "constant": {"weights": {"b": 1.0, "a": 2.0}},
    "cosmos": {"lambda_": 0.5, "weights": {"a": 0.5, "b": 0.5}},
    "pbi": {"theta": 5.0, "weights": {"a": 0.5, "b": 0.5}},
    "stch": {"mu": 0.1},
}


def balancer(method):
    return LossBalancer(method, TASKS, **SETTINGS.get(method, {}))


def losses(a=1.0, b=4.0):
    return {"b": torch.tensor(b), "a": torch.tensor(a)}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        pytest.param("sum", 5.0, id="sum"),
        pytest.param("mean", 2.5, id="mean"),
        pytest.param("constant", 6.0, id="constant"),
        pytest.param("geometric_mean", 2.0, id="geometric mean"),
        pytest.param("uw", 2.5, id="uncertainty, at its start: half the sum"),
        pytest.param("imtl_l", 5.0, id="IMTL-L, at its start: the sum"),
        pytest.param("dwa", 5.0, id="DWA, in its first epoch: the sum"),
        # z = ½, c = 1 / (½ / 1 + ½ / 4) = 1.6: 1.6 · ½ · (ln 1 + ln 4)
        pytest.param("famo", 0.8 * math.log(4), id="FAMO, at its start"),
        pytest.param("stch", 0.1 * math.log(math.exp(5) + math.exp(20)), id="STCH"),
        pytest.param("pbi", 5 / 2**0.5 + 5 * 3 / 2**0.5, id="PBI"),
        pytest.param("cosmos", 2.5 - 0.5 * 2.5 / (0.5**0.5 * 17**0.5), id="COSMOS"),
    ],
)
def test_value(method, expected):
    assert balancer(method)(losses()).item() == pytest.approx(expected, rel=1e-5)


def test_random_weights_are_positive_and_sum_to_one():
    balance = balancer("random")
    values = [balance({"a": torch.tensor(0.0), "b": torch.tensor(1.0)}).item() for _ in range(50)]
    assert 0 < min(values) < max(values) < 1
    assert balance(losses(3.0, 3.0)).item() == pytest.approx(3.0)


def public(package, base):
    classes = (getattr(package, name) for name in package.__all__)
    return {
        c.__name__
        for c in classes
        if inspect.isclass(c) and issubclass(c, base) and not inspect.isabstract(c)
    }


def test_every_method_of_torchjd_has_a_name():
    found = public(torchjd.scalarization, torchjd.scalarization.Scalarizer)
    assert set(SCALARIZERS.values()) == found
    bases = {"WeightedAggregator", "GramianWeightedAggregator"}
    found = public(torchjd.aggregation, torchjd.aggregation.Aggregator)
    assert set(AGGREGATORS.values()) == found - bases


@pytest.mark.parametrize("method", sorted(SCALARIZERS))
def test_only_learned_weights_are_for_the_optimizer(method):
    balance = balancer(method)
    learned = [p for p in balance.parameters() if p.requires_grad]
    assert [p.numel() for p in learned] == ([2] if method in {"uw", "imtl_l"} else [])
    balance({t: x.requires_grad_() for t, x in losses(2.0, 4.0).items()}).backward()
    assert all(p.grad.abs().min() > 0 for p in learned)


def test_uncertainties_learn_to_weigh_by_the_inverse_loss():
    balance = balancer("uw")
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        balance(losses()).backward()
        optimizer.step()
    # the minimum of ½ e^(−s) L + ½ s is at s = ln L
    assert balance.scalarizer.log_var.tolist() == pytest.approx([0.0, math.log(4)], abs=1e-3)


def test_dwa_weighs_by_how_losses_fell_over_two_epochs():
    balance = LossBalancer("dwa", TASKS, temperature=1.0)
    for a, b in ((2.0, 2.0), (1.0, 2.0)):
        balance(losses(a, b))
        balance.end_epoch()
    weights = [2 * math.exp(r) / (math.exp(0.5) + math.exp(1.0)) for r in (0.5, 1.0)]
    assert balance(losses(3.0, 5.0)).item() == pytest.approx(weights[0] * 3 + weights[1] * 5)


def famo_weights(balance):
    """z, from the gradient of the loss at equal losses of 1, where c is 1."""
    at = {t: torch.tensor(1.0, requires_grad=True) for t in TASKS}
    return [float(g) for g in torch.autograd.grad(balance.eval()(at), list(at.values()))]


def test_famo_shifts_weight_to_the_task_that_fell_less():
    balance = LossBalancer("famo", TASKS, lr=0.1)
    assert famo_weights(balance) == pytest.approx([0.5, 0.5])
    for _ in range(5):
        balance.train()(losses(1.0, 1.0))
        balance.update(losses(0.5, 1.0))
    first, second = famo_weights(balance)
    assert first + second == pytest.approx(1.0)
    assert first == pytest.approx(0.5 - 0.23, abs=0.02)  # five Adam steps of 0.1 on both logits


def steps(balance, first, last):
    found = []
    for step in range(first, last):
        found.append(balance(losses(1.0 + step, 3.0)).item())
        balance.update(losses(0.5 + step, 2.9))
        if step % 2:
            balance.end_epoch()
    return found


@pytest.mark.parametrize("method", sorted(SCALARIZERS))
def test_a_restored_balancer_goes_on_as_if_nothing_had_happened(method, tmp_path):
    torch.manual_seed(1)
    whole = balancer(method)
    expected = steps(whole, 0, 9)
    torch.manual_seed(1)
    interrupted = balancer(method)
    steps(interrupted, 0, 5)
    torch.save(interrupted.state_dict(), tmp_path / "state")
    restored = balancer(method)
    restored.load_state_dict(torch.load(tmp_path / "state"))
    assert steps(restored, 5, 9) == expected[5:]
    assert bits(restored.state_dict()) == bits(whole.state_dict())


@pytest.mark.parametrize("method", sorted(SCALARIZERS))
def test_evaluating_leaves_no_memory(method):
    balance = balancer(method)
    steps(balance, 0, 5)
    before = bits(balance.state_dict())
    balance.eval()(losses(7.0, 8.0))
    assert bits(balance.state_dict()) == before


def test_settings_per_task_follow_the_module_and_are_not_saved():
    balance = balancer("constant").to(torch.float64)
    assert balance({t: x.double() for t, x in losses().items()}).dtype == torch.float64
    assert balance.scalarizer.weights.dtype == torch.float64
    assert list(balance.state_dict()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dwr", TASKS), "Expected `method` to be one of 'constant', 'cosmos', 'dwa', 'famo'"),
        (("stch", TASKS), r"Expected `settings` of STCH to have \['mu'\], but got \[\]"),
    ],
)
def test_unknown_and_missing_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LossBalancer(*arguments)


def test_unknown_settings_and_tasks_are_refused():
    with pytest.raises(ValueError, match="Expected `settings` to be one of 'temperature', but got"):
        LossBalancer("dwa", TASKS, temprature=1.0)
    with pytest.raises(
        ValueError, match=r"Expected `weights` to have one value per task \['a', 'b'"
    ):
        LossBalancer("constant", TASKS, weights={"a": 1.0})
    with pytest.raises(ValueError, match=r"Expected `losses` of the tasks \['a', 'b'\], but got"):
        balancer("sum")({"a": torch.tensor(1.0)})
    with pytest.raises(ValueError, match=r"Expected `losses` to be scalars, .*\{'b': \(2,\)\}"):
        balancer("sum")({"a": torch.tensor(1.0), "b": torch.ones(2)})


def test_famo_refuses_an_update_without_a_call():
    with pytest.raises(ValueError, match="`update` must be called after the scalarizer"):
        balancer("famo").update(losses())


def test_without_torchjd_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    for make in (LossBalancer, make_aggregator):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-attnbal\[mtl\]'"):
            make("sum", TASKS)


WITHOUT_SOLVERS = """
import sys
sys.modules.update(cvxpy=None, ecos=None)
from lightning_attnbal.multitask import make_aggregator
for method, settings in (("cagrad", {"c": 0.5}), ("nash_mtl", {})):
    try:
        make_aggregator(method, ["a", "b"], **settings)
    except ImportError as error:
        print(method, error)
"""


def test_a_method_whose_solver_is_missing_names_it():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SOLVERS], capture_output=True, text=True, check=True
    )
    cagrad, nash = done.stdout.splitlines()
    assert re.match("cagrad .*cvxpy.*pip install", cagrad)
    assert re.match("nash_mtl .*ecos.*pip install", nash)


def conflicting():
    """(2, 3): the example of TorchJD's documentation, its first two rows of different length."""
    return torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_cagrad_lifts_the_worst_task_within_its_distance_of_the_mean(c):
    """Liu et al. 2021, equation 1: max min_i <g_i, d> with |d - g_0| <= c |g_0|."""
    jacobian = conflicting()
    mean = jacobian.mean(0)
    direction = make_aggregator("cagrad", TASKS, c=c)(jacobian)
    assert float((direction - mean).norm()) == pytest.approx(c * float(mean.norm()), rel=1e-3)
    assert (jacobian @ direction).min() > (jacobian @ mean).min()
    others = mean + c * mean.norm() * nn.functional.normalize(torch.randn(500, 3), dim=1)
    assert (others @ jacobian.T).min(1).values.max() <= (jacobian @ direction).min() + 1e-3


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
def test_nash_mtl_divides_the_gain_as_bargaining_does():
    """Navon et al. 2022: d = G' alpha with (G G' alpha)_i = 1 / alpha_i, up to its norm."""
    jacobian = conflicting()
    direction = make_aggregator("nash_mtl", TASKS)(jacobian)
    alpha = torch.linalg.lstsq(jacobian.T, direction.unsqueeze(1)).solution.squeeze(1)
    first, second = (jacobian @ direction) * alpha
    assert first > 0
    assert first == pytest.approx(second.item(), rel=0.02)


def test_the_projection_is_optimal():
    """v ≥ u, Gv ≥ 0 and v = u wherever Gv > 0: the conditions of Karush, Kuhn and Tucker."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        jacobian = torch.tensor(rng.normal(size=(4, 6)))
        gramian, u = jacobian @ jacobian.T, torch.tensor(rng.uniform(0, 1, size=(3, 4)))
        v = NonNegativeProjector()(u, gramian)
        slope = v @ (gramian / gramian.trace() + 1e-4 * torch.eye(4))
        assert (v - u).min() > -1e-9
        assert slope.min() > -1e-9
        assert ((v - u) * slope).abs().max() < 1e-9


@pytest.mark.parametrize("scale", [1.0, 1e-4], ids=["as it is", "small gradients"])
def test_upgrad_conflicts_with_no_task(scale):
    jacobian = scale * torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    direction = make_aggregator("upgrad", TASKS)(jacobian)
    # the example of TorchJD's documentation
    torch.testing.assert_close(
        direction / scale, torch.tensor([0.2929, 1.9004, 1.9004]), atol=1e-4, rtol=0
    )
    assert (jacobian @ direction).min() > 0


def test_preferences_of_tasks_are_in_their_order():
    aggregate = make_aggregator("constant", TASKS, weights={"b": 0.0, "a": 2.0})
    assert aggregate(torch.tensor([[1.0], [7.0]])).tolist() == [2.0]


@pytest.mark.parametrize("chunk_size", [1, None])
def test_shared_parameters_get_the_aggregate_and_heads_their_own(chunk_size):
    trunk, heads = nn.Linear(3, 2), [nn.Linear(2, 1), nn.Linear(2, 1)]
    parameters = [p for part in (trunk, *heads) for p in part.parameters()]

    def forward():
        features = trunk(torch.ones(4, 3))
        return features, [(h(features) - i).square().mean() for i, h in enumerate(heads)]

    features, values = forward()
    sum(values).backward()
    plain = [p.grad.clone() for p in parameters]
    for p in parameters:
        p.grad = None
    features, values = forward()
    jacobian_backward(
        values,
        parameters,
        make_aggregator("constant", TASKS, weights={"a": 3.0, "b": 3.0}),
        features=[features],
        chunk_size=chunk_size,
    )
    for n, (p, expected) in enumerate(zip(parameters, plain, strict=True)):
        torch.testing.assert_close(p.grad, (3 if n < 2 else 1) * expected)


def test_a_frozen_shared_part_leaves_a_plain_backward_pass():
    trunk, head = nn.Linear(3, 2).requires_grad_(False), nn.Linear(2, 2)
    features = trunk(torch.ones(4, 3))
    values = head(features).square().mean(0)
    expected = torch.autograd.grad(values.sum(), head.weight, retain_graph=True)[0]
    aggregator = make_aggregator("upgrad", TASKS)
    jacobian_backward(list(values), head.parameters(), aggregator, features=[features])
    torch.testing.assert_close(head.weight.grad, expected)

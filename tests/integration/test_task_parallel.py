"""Tasks at the same time: on one shared forward pass, and on several ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_attnbal.callbacks import AttentionBalancer, TaskSettings
from lightning_attnbal.callbacks._task_ranks import refuse_ranks
from lightning_attnbal.core import Budget
from tests.integration.tasks_run import BATCH, TwoHeads, fit, rows
from tests.integration.tiny import same, weights

RANKS = TaskSettings(parallel="ranks")
DDP = {"strategy": "ddp_spawn_find_unused_parameters_true", "devices": 2}


class Shared(TwoHeads):
    """Both tasks on one forward pass of the trunk."""

    def training_step(self, batch, batch_idx):
        (tokens, _), *others = batch.values()
        assert all(torch.equal(tokens, other) for other, _ in others)
        self.seen.append(int(tokens.sum()))
        features = self.encoder(self.embedding(tokens)).mean(1)
        losses = [
            nn.functional.cross_entropy(self.heads[task](features), labels)
            for task, (_, labels) in batch.items()
        ]
        return torch.stack(losses).sum()


class Joined(Shared):
    """The same from one loader of both labels, as a user without tasks would write it."""

    def training_step(self, batch, batch_idx):
        tokens, short, long = batch
        return super().training_step({"short": (tokens, short), "long": (tokens, long)}, batch_idx)


def same_samples(**settings):
    data = rows(12 * BATCH, 6)
    tokens, labels = data.tensors
    other = TensorDataset(tokens, 2 - labels)
    return {
        "short": DataLoader(data, BATCH, **settings),
        "long": DataLoader(other, BATCH, **settings),
    }


def test_heads_share_a_forward_pass(tmp_path):
    tasks = TaskSettings(parallel="heads")
    balancer, alone = AttentionBalancer("50%", tasks=tasks), AttentionBalancer("50%")
    torch.manual_seed(0)
    together, _ = fit(tmp_path / "a", balancer, model=Shared(), data=same_samples())
    torch.manual_seed(0)
    tokens, labels = same_samples()["short"].dataset.tensors
    joined = DataLoader(TensorDataset(tokens, labels, 2 - labels), BATCH)
    plain, _ = fit(tmp_path / "b", alone, model=Joined(), data=joined)
    assert together.seen == plain.seen
    assert same(weights(together), weights(plain))
    assert [d.plan for d in balancer.history] == [d.plan for d in alone.history]
    assert balancer.spent == alone.spent


def test_heads_reshuffle_together(tmp_path):
    tasks = TaskSettings(parallel="heads")
    model, _ = fit(
        tmp_path,
        AttentionBalancer("100%", tasks=tasks),
        model=Shared(),
        data=same_samples(shuffle=True),
        max_epochs=2,
    )
    first, second = model.seen[:12], model.seen[12:]
    assert first != second
    assert sum(first) == sum(second)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"parallel": "streams"}, "no gain was shown"),
        ({"parallel": "both"}, "one of 'off', 'heads', 'ranks'"),
        ({"parallel": "heads", "weights": {"a": 2.0}}, "`weights` to be empty"),
        ({"parallel": "heads", "floors": {"a": 0.5}}, "`floors` to be empty"),
    ],
    ids=["streams", "unknown", "heads with weights", "heads with floors"],
)
def test_what_is_no_parallel_setting_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        TaskSettings(**settings)


def test_heads_need_the_same_samples(tmp_path):
    balancer = AttentionBalancer("50%", tasks=TaskSettings(parallel="heads"))
    with pytest.raises(ValueError, match="data sets of one size"):
        fit(tmp_path, balancer, model=Shared())


class Own(TwoHeads):
    def backward(self, loss, *args, **kwargs):
        loss.backward()


@pytest.mark.parametrize(
    ("trainer", "budget", "probes", "model", "words"),
    [
        ({}, "50%", 0.0, TwoHeads, "Expected DDP that finds unused parameters, on two or more"),
        ({**DDP, "strategy": "ddp"}, "50%", 0.0, TwoHeads, "Expected DDP that finds unused"),
        ({**DDP, "accumulate_grad_batches": 2}, "50%", 0.0, TwoHeads, "`accumulate_grad_batches`"),
        (DDP, "1h", 0.0, TwoHeads, "a budget in FLOPs"),
        (DDP, "50%", 0.1, TwoHeads, "`probes` to be 0"),
        (DDP, "50%", 0.0, Own, "without a `backward` of its own"),
    ],
    ids=["one process", "plain DDP", "accumulation", "time", "probes", "own backward"],
)
def test_what_ranks_cannot_run_with_is_refused(trainer, budget, probes, model, words):
    runner = Trainer(accelerator="cpu", barebones=True, **trainer)
    runner.strategy.connect(model())
    with pytest.raises(MisconfigurationException, match=words):
        refuse_ranks(runner, Budget.parse(budget), probes)


def test_one_process_is_refused_before_training(tmp_path):
    with pytest.raises(MisconfigurationException, match="Expected DDP that finds unused"):
        fit(tmp_path, AttentionBalancer("50%", tasks=RANKS))


class Write(Callback):
    """Leaves what this rank did in files."""

    def on_train_end(self, trainer, pl_module):
        folder = Path(trainer.default_root_dir)
        balancer = next(c for c in trainer.callbacks if isinstance(c, AttentionBalancer))
        found = {
            "served": pl_module.served,
            "seen": pl_module.seen,
            "spent": balancer.spent.amount,
            "limit": balancer.limit.amount,
            "shares": balancer.shares,
            "plans": [(d.step, d.plan.task, str(d.plan)) for d in balancer.history],
        }
        (folder / f"{trainer.global_rank}.json").write_text(json.dumps(found))
        torch.save(weights(pl_module), folder / f"{trainer.global_rank}.pt")


SAME = {"reach": 1.0}  # shares as the data's, half and half


def balancer(budget, **settings):
    """With a constant learning rate, which would else move within an accumulated step."""
    fixed = {"lr_schedule": None, "lr_scaling": None, "levels": ("frozen", "full")}
    return AttentionBalancer(budget, tasks=TaskSettings(**SAME, **settings), **fixed)


def in_pairs(data):
    """The same rows, each two batches swapped: in the order that two ranks take turns with them."""
    order = torch.arange(len(data)).view(-1, 2, BATCH).flip(1).flatten()
    return TensorDataset(*(tensor[order] for tensor in data.tensors))


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("budget", ["50%", "100%"])
def test_a_task_on_each_rank_is_both_accumulated(tmp_path, budget):
    short, long = rows(48, 6), rows(48, 9, seed=1)
    data = {"short": DataLoader(short, BATCH), "long": DataLoader(long, BATCH)}
    on_ranks = balancer(budget, parallel="ranks")
    fit(tmp_path, on_ranks, Write(), data=data, **DDP)
    left = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    trained = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert same(*trained)
    for key in ("spent", "limit", "shares", "plans"):
        assert left[0][key] == left[1][key]
    assert len(list(tmp_path.glob("attnbal*.jsonl"))) == 1

    alone = balancer(budget)
    data = {"short": DataLoader(short, BATCH), "long": DataLoader(in_pairs(long), BATCH)}
    model, _ = fit(tmp_path / "alone", alone, data=data, accumulate_grad_batches=2)
    together = [sorted(pair) for pair in zip(left[0]["seen"], left[1]["seen"], strict=True)]
    assert together == [sorted(pair) for pair in zip(*[iter(model.seen)] * 2, strict=True)]
    assert left[0]["spent"] == pytest.approx(alone.spent.amount, rel=1e-9)
    assert left[0]["plans"] == [[d.step, d.plan.task, str(d.plan)] for d in alone.history]
    assert any("frozen:" in plan for *_, plan in left[0]["plans"]) == (budget == "50%")
    for name, weight in weights(model).items():
        torch.testing.assert_close(trained[0][name], weight, rtol=0, atol=1e-6)

"""How a recommender is trained, scored and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from torchmetrics import MeanMetric, MeanSquaredError, Metric, R2Score
from torchmetrics.classification import BinaryAUROC

from recipes._common import TasksModule, write_card
from recipes._common.module import Stage
from recipes.recommendation.config import SASRecConfig, Softmax
from recipes.recommendation.ranking import ranking_scores, ranks_of
from recipes.recommendation.towers import Batch, CausalTowers

_HEADLINES = {"next": "ndcg", "rating": "r2", "like": "auc"}
_IGNORED = -1  # label of what is not asked about


class Recommender(TasksModule):
    """Trains towers on the next item, its rating and whether it is liked.

    Losses: `next`: cross-entropy of a softmax over all items, or over the right one and drawn ones;
    `rating`: squared error in standard deviations; `like`: cross-entropy of yes and no.

    Logs, with the last interaction of each row asked about, under `val/<task>/` and
    `test/<task>/`: for `next`, among all items that the user had not seen before, `ndcg` (NDCG@10),
    `recall` (Recall@10) and `mrr`; for `rating` `rmse` in stars and `r2`, the share of the ratings'
    variance that is explained; for `like` `auc`; `loss` for all.

    Args:
        config: of the loss and the optimizer.
        towers: what is trained.
        card: what the predictor must know, beside the weights.
    """

    def __init__(self, config: SASRecConfig, towers: CausalTowers, card: Mapping[str, Any]) -> None:
        super().__init__(config)
        self._softmax, self._num_negatives = config.loss, config.num_negatives
        self.towers, self._card = towers, dict(card)
        self.headline = {task: _HEADLINES[task] for task in towers.heads}
        stages = ("val", "test")
        self.metrics = nn.ModuleDict(
            {f"{s} {t}": _metrics(t) for s in stages for t in self.headline}
        )

    def losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Mean loss of each task over the interactions that are asked about."""
        found: dict[int, tuple[Tensor, Tensor]] = {}  # windows that tasks share run once
        for rows in batch.values():
            if id(rows["items"]) not in found:
                found[id(rows["items"])] = self.towers(rows)
        losses = {}
        for task, rows in batch.items():
            states, target = found[id(rows["items"])]
            losses[task] = self._loss(task, states, rows["items"] * target, rows["ratings"])
        return losses

    def _loss(self, task: str, states: Tensor, items: Tensor, ratings: Tensor) -> Tensor:
        """Of states (..., D), items (...), 0 where nothing is asked, and ratings (...)."""
        if task == "next":
            logits, labels = self._logits(self.towers.user_vectors(states), items)
            return cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=_IGNORED)
        found = self.towers.answers(task, states, self.towers.item_vectors(items))
        scale, is_asked = self.towers.ratings, items > 0
        if task == "rating":
            losses = mse_loss(found, scale.standardise(ratings), reduction="none")
        else:
            likes = scale.are_likes(ratings).float()
            losses = binary_cross_entropy_with_logits(found, likes, reduction="none")
        return (losses * is_asked).sum() / is_asked.sum()

    def _logits(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of all items, or of the right one and drawn ones; which is right."""
        towers = self.towers
        if self._softmax is Softmax.full or not self.training:
            return users @ towers.all_vectors()[1:].T, items - 1
        shape = (self._num_negatives,)
        drawn = torch.randint(1, towers.num_items + 1, shape, device=items.device)
        others = users @ towers.item_vectors(drawn).T
        others = others.masked_fill(items[..., None] == drawn, -torch.inf)
        right = (users * towers.item_vectors(items)).sum(-1, keepdim=True)
        return torch.cat([right, others], -1), torch.where(items > 0, 0, _IGNORED)

    def evaluate(self, task: str, batch: Batch, stage: Stage) -> None:
        """Score the last interaction of each row."""
        states, target = self.towers(batch)
        last = torch.arange(len(target), device=target.device), target.int().argmax(1)
        state, items, ratings = states[last], batch["items"][last], batch["ratings"][last]
        metrics: Any = self.metrics[f"{stage} {task}"]
        for name, values in self._judged(task, state, items, ratings, batch).items():
            metrics[name].update(*values)
        loss = self._loss(task, state, items, ratings)
        self.log_for(task, stage, {"loss": loss, **metrics}, len(target))

    def _judged(
        self, task: str, states: Tensor, items: Tensor, ratings: Tensor, batch: Batch
    ) -> dict[str, tuple[Tensor, ...]]:
        """What each metric is to see."""
        if task == "next":
            scores = self.towers.user_vectors(states) @ self.towers.all_vectors().T
            ranks = ranks_of(scores.float(), items, batch["seen"])
            return {name: (values,) for name, values in ranking_scores(ranks).items()}
        found = self.towers.answers(task, states, self.towers.item_vectors(items)).float()
        scale = self.towers.ratings
        if task == "rating":
            return dict.fromkeys(("rmse", "r2"), (scale.restore(found), ratings))
        return {"auc": (found, scale.are_likes(ratings).int())}

    def save_pretrained(self, folder: Path) -> None:
        """The encoder for `AutoModel`, everything else as safetensors, and the card."""
        self.towers.encoder.save_pretrained(folder / "encoder")
        rest = {k: v for k, v in self.towers.state_dict().items() if not k.startswith("encoder.")}
        save_file({k: v.contiguous() for k, v in rest.items()}, folder / "towers.safetensors")
        facts = {"tasks": list(self.headline), "ratings": asdict(self.towers.ratings)}
        write_card(folder, "recommendation", facts | self._card)


def _metrics(task: str) -> nn.ModuleDict:
    found: dict[str, dict[str, Metric]] = {
        "next": {"ndcg": MeanMetric(), "recall": MeanMetric(), "mrr": MeanMetric()},
        "rating": {"rmse": MeanSquaredError(squared=False), "r2": R2Score()},
        "like": {"auc": BinaryAUROC()},
    }
    return nn.ModuleDict(found[task])

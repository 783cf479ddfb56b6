"""A trained recommender in use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_attnbal.core import check_choice, check_integer
from recipes._common import read_card
from recipes.recommendation.config import RecommendationDataConfig
from recipes.recommendation.interactions import Interactions
from recipes.recommendation.models import load_towers
from recipes.recommendation.sources import load_interactions


class RecommendationPredictor:
    """Recommends items that are not in a history, best first.

    An input is a user of the training data by id ("196"), whose whole history is read from where
    the training data was; or a history: ids or titles of items, first to last, separated by commas
    ("Fargo (1996), Jaws (1975)"; for a single item, end with a comma), each taken as liked, by a
    user of whom nothing is known. A record has `input`, `task` and `items`: `id`, `title` and
    `score`: of "next" the probability to be next, of "rating" the rating, of "like" the probability
    of a like.

    Args:
        folder: what a run left as `model`.

    Raises:
        FileNotFoundError: it holds no model of a recipe.
        ValueError: a task, user or item is unknown.
    """

    def __init__(self, folder: Path) -> None:
        self.card = read_card(folder)
        self.towers = load_towers(folder)
        self.titles: list[str] = self.card["titles"]
        self.item_ids: list[str] = self.card["item_ids"]
        self._numbers = {title.casefold(): i for i, title in enumerate(self.titles)}
        self._numbers |= {item.casefold(): i for i, item in enumerate(self.item_ids)}
        if not len(self.titles) == len(self.item_ids) == self.towers.num_items + 1:
            msg = f"Expected `titles` and `item_ids` of {folder} to have a name for each item."
            raise ValueError(msg)

    @cached_property
    def interactions(self) -> Interactions:
        """Histories of the training data's users.

        Raises:
            FetchError: the data cannot be had.
            ValueError: it is not what the model was trained on.
        """
        found = load_interactions(RecommendationDataConfig(**self.card["data"]))
        if list(found.item_ids) != self.item_ids:
            msg = (
                "Expected the data to have the items of training; give a history of items instead."
            )
            raise ValueError(msg)
        return found

    def __call__(
        self, inputs: Sequence[str], *, task: str | None = None, top: int = 5
    ) -> list[dict[str, Any]]:
        """Recommend for each input."""
        task = check_choice("task", task or self.card["tasks"][0], tuple(self.card["tasks"]))
        check_integer("top", top, low=1)
        return [
            {"input": text, "task": task, "items": self._best(text, task, top)} for text in inputs
        ]

    @torch.inference_mode()
    def _best(self, text: str, task: str, top: int) -> list[dict[str, Any]]:
        items, ratings, user = self._history(text) if "," in text else self._of_user(text)
        scores = self._scores(task, items, ratings, user)
        scores[0] = scores[items] = -torch.inf
        best = scores.topk(min(top, int(scores.isfinite().sum())))
        return [
            {"id": self.item_ids[i], "title": self.titles[i], "score": score}
            for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _scores(self, task: str, items: Tensor, ratings: Tensor, user: Tensor) -> Tensor:
        """Score of each item (I + 1) after the history; the place after it is asked about."""
        keep = self.card["max_length"] - 1
        window = torch.cat([items[-keep:], items.new_ones(1)])  # any item: it is not looked at
        batch = {
            "items": window[None],
            "ratings": torch.cat([ratings[-keep:], ratings.new_zeros(1)])[None],
            "user_features": user[None],
            "target": (torch.arange(len(window)) == len(window) - 1)[None],
        }
        state, vectors = self.towers(batch)[0][0, -1], self.towers.all_vectors()
        if task == "next":
            logits = self.towers.user_vectors(state) @ vectors.T
            logits[0] = -torch.inf
            return logits.softmax(0)
        found = self.towers.answers(task, state.expand_as(vectors), vectors)
        return self.towers.ratings.restore(found) if task == "rating" else found.sigmoid()

    def _of_user(self, text: str) -> tuple[Tensor, Tensor, Tensor]:
        of = self.interactions
        if text.strip() not in of.user_ids:
            some = ", ".join(map(repr, of.user_ids[:3]))
            msg = f"Expected a user such as {some}, or items separated by commas, but got {text!r}."
            raise ValueError(msg)
        user = of.user_ids.index(text.strip())
        features = torch.from_numpy(of.user_features[user])
        return torch.from_numpy(of.items[user]), torch.from_numpy(of.ratings[user]), features

    def _history(self, text: str) -> tuple[Tensor, Tensor, Tensor]:
        """Items of a list; a title may itself have commas."""
        parts = [part.strip() for part in text.split(",")]
        items: list[int] = []
        while parts:
            end = next((n for n in range(len(parts), 0, -1) if self._number(parts[:n])), 0)
            if end:
                items.append(self._number(parts[:end]))
            elif parts[0]:
                msg = f"Expected ids or titles of items of the training data, but got {parts[0]!r}."
                raise ValueError(msg)
            parts = parts[max(end, 1) :]
        liked = torch.full((len(items),), self.towers.ratings.like_from)
        return torch.tensor(items, dtype=torch.long), liked, self.towers.mean_user

    def _number(self, parts: Sequence[str]) -> int:
        """The item that the parts name together; 0: none."""
        return self._numbers.get(", ".join(parts).casefold(), 0)


def load_predictor(folder: Path) -> RecommendationPredictor:
    """The recommender that a run saved there."""
    return RecommendationPredictor(folder)

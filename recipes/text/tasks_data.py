"""Batches of several questions about texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import CombinedLoader
from sklearn.dummy import DummyClassifier  # type: ignore[import-untyped]  # it ships no types
from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from lightning_attnbal.core import check_choice, check_integer
from recipes._common.data import NamedLoader, Split, TasksData
from recipes._common.heads import fit_and_score, share_inputs
from recipes.text.config import TextDataConfig
from recipes.text.data import EncodedTexts, LengthBatches, ReviewsData, pad_texts
from recipes.text.module import load_tokenizer
from recipes.text.table import TextTable, load_table


class TextData(TasksData):
    """Texts with labels of several tasks, tokenised once.

    A batch holds `input_ids` and `attention_mask` (B, N) and `labels` (B,), with N the longest text
    in it, rounded up; training batches hold texts of about one length. Where all tasks ask about
    the same texts, validation and test have all of them in each batch, so that a text is encoded
    once.

    Args:
        config: what to load and how to batch it.

    Raises:
        FetchError: texts or tokenizer cannot be had.
        ValueError: a number or name is outside its range.

    Attributes:
        class_names: task → names of its classes, after `setup`.
        tokenizer: what made the token ids.
        max_tokens: where texts were cut.
    """

    def __init__(self, config: TextDataConfig) -> None:
        super().__init__(config)
        if not self.tasks:
            msg = "Expected `data.tasks` to name one task or several, but got none."
            raise ValueError(msg)
        for task in self.tasks:
            if "." in task or hasattr(nn.ModuleDict(), task):
                msg = (
                    f"Expected `data.tasks` to have no names such as {task!r}, which modules use; "
                    f"call it otherwise: `data.tasks=[mine] data.label_columns={{mine:{task}}}`."
                )
                raise ValueError(msg)
        self.max_tokens = check_integer("data.max_tokens", config.max_tokens, low=3)
        self._bucket = check_integer("data.bucket", config.bucket, low=1)
        self._texts_config = config
        self._rows: dict[tuple[str, str], EncodedTexts] = {}
        self._texts: dict[tuple[str, str], list[str]] = {}
        self.class_names: dict[str, tuple[str, ...]] = {}

    @property
    def class_counts(self) -> dict[str, int]:
        """Task → number of classes, after `setup`."""
        return {task: len(names) for task, names in self.class_names.items()}

    def _prepare(self) -> None:
        self.tokenizer = load_tokenizer(self._texts_config.tokenizer)
        table = load_table(self._texts_config)
        config = self.config
        parts = table.split(config.num_train, config.num_val, config.num_test)
        for split, rows in parts.items():
            self._encode(split, table, rows.tolist())
        self.class_names = dict(table.class_names)
        self.same_samples = all(bool((labels >= 0).all()) for labels in table.labels.values())

    def _encode(self, split: str, table: TextTable, rows: list[int]) -> None:
        texts = [table.texts[i] for i in rows]
        ids = self.tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"]
        for task, labels in table.labels.items():
            known = [n for n, i in enumerate(rows) if labels[i] >= 0]
            if not known:
                msg = f"Expected {split} rows with a label of task {task!r}, but got none."
                raise ValueError(msg)
            chosen = labels[[rows[n] for n in known]]
            self._rows[task, split] = EncodedTexts([ids[n] for n in known], chosen)
            self._texts[task, split] = [texts[n] for n in known]

    def rows(self, task: str, split: Split) -> EncodedTexts:
        """Token ids and labels of a task."""
        return self._rows[task, split]

    def collate(self, rows: list[Any]) -> dict[str, Tensor]:
        """A padded batch."""
        return pad_texts(rows, self.tokenizer.pad_token_id, self._bucket)

    def batches(self, task: str, generator: torch.Generator) -> Sampler[list[int]]:
        """Texts of about one length go together."""
        lengths = self.rows(task, "train").lengths
        return LengthBatches(lengths, self.config.batch_size, generator)

    def baselines(self) -> dict[str, dict[str, float]]:
        """The most frequent class; logistic regression on TF-IDF of words and word pairs."""
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        models = {
            "majority": DummyClassifier(),
            "tf-idf": make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000)),
        }
        return {name: self._score(model) for name, model in models.items()}

    def _score(self, model: Any) -> dict[str, float]:
        scores = {}
        for task, num_classes in self.class_counts.items():
            train, test = (
                (self._texts[task, split], self._rows[task, split].labels)
                for split in ("train", "test")
            )
            for name, score in fit_and_score(model, train, test, num_classes).items():
                scores[f"{task}/{name}"] = score
        return scores

    def _in_turn(self, split: Split) -> CombinedLoader:
        if not self.same_samples:
            return super()._in_turn(split)
        together = Together({task: self.loader(task, split) for task in self.tasks})
        return CombinedLoader({"all": together}, "sequential")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Let texts that several tasks share be encoded once (Lightning's hook)."""
        return share_inputs(batch)


class Together:
    """Loaders of the same texts, batch by batch; the texts are one tensor for all tasks.

    Args:
        loaders: task → its loader, all of one length.
    """

    def __init__(self, loaders: Mapping[str, DataLoader[Any]]) -> None:
        self._loaders = dict(loaders)

    def __len__(self) -> int:
        return max(map(len, self._loaders.values()))

    def __iter__(self) -> Iterator[dict[str, dict[str, Tensor]]]:
        for batches in zip(*self._loaders.values(), strict=True):
            yield share_inputs(dict(zip(self._loaders, batches, strict=True)))


class TextTasksData(pl.LightningDataModule):
    """Single-task data put together: one loader per task, all in turn for validation and test.

    Args:
        tasks: name → data of the task.
        is_shared: whether all tasks ask about the same texts, so that validation and test encode
            each text once for all of them.
        mode: "one" loader per task for training, for tasks that take turns, or "all" tasks in each
            step: of the same texts, or a batch of each, the shorter sets over and over.

    Raises:
        ValueError: an unknown mode.

    Example:
        >>> TextTasksData({}).class_counts
        {}
    """

    def __init__(
        self,
        tasks: Mapping[str, ReviewsData],
        *,
        is_shared: bool = False,
        mode: Literal["one", "all"] = "one",
    ) -> None:
        super().__init__()
        self.tasks = dict(tasks)
        self.is_shared = is_shared
        self.mode = check_choice("mode", mode, ("one", "all"))

    @property
    def class_counts(self) -> dict[str, int]:
        """Task → number of classes, after `setup`."""
        return {task: len(data.class_names) for task, data in self.tasks.items()}

    def setup(self, stage: str = "fit") -> None:
        """Load, split and tokenise, once for all stages."""
        for data in self.tasks.values():
            data.setup(stage)

    def train_dataloader(self) -> Any:
        """One loader per task, or one for all of them."""
        loaders = {task: data.train_dataloader() for task, data in self.tasks.items()}
        if self.mode == "one":
            return loaders
        return Together(loaders) if self.is_shared else CombinedLoader(loaders, "max_size_cycle")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Let texts that several tasks share be encoded once (Lightning's hook)."""
        return share_inputs(batch)

    def val_dataloader(self) -> CombinedLoader:
        """Validation rows, one task after the other."""
        return self._in_turn({task: data.val_dataloader() for task, data in self.tasks.items()})

    def test_dataloader(self) -> CombinedLoader:
        """Test rows, one task after the other."""
        return self._in_turn({task: data.test_dataloader() for task, data in self.tasks.items()})

    def _in_turn(self, loaders: Mapping[str, DataLoader[Any]]) -> CombinedLoader:
        if self.is_shared:
            return CombinedLoader({"all": Together(loaders)}, "sequential")
        named = {task: NamedLoader(task, one) for task, one in loaders.items()}
        return CombinedLoader(named, "sequential")

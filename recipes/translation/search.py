"""Beam search, in test and in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM

from recipes.translation.codec import Codec


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamSearch:
    """A model with what it needs to translate.

    Args:
        model: encoder-decoder of transformers.
        codec: its tokenizers.
        num_beams: hypotheses kept, in [1, inf).
        max_tokens: of a source and of a translation, in [4, inf).
    """

    model: Any
    codec: Codec
    num_beams: int
    max_tokens: int

    @torch.no_grad()
    def __call__(
        self, batch: Mapping[str, Any], sources: Sequence[str], task: str, num_answers: int = 1
    ) -> list[list[str]]:
        """Translations of B sources, best first.

        Args:
            batch: `input_ids` and `attention_mask` (B, N) of the sources.
            sources: B texts, for their placeholders.
            task: pair of languages.
            num_answers: of each source, in [1, inf); at most `num_beams` are given.
        """
        count = min(num_answers, self.num_beams)
        longest = int(batch["attention_mask"].sum(1).max())
        ids = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            num_beams=self.num_beams,
            num_return_sequences=count,
            max_new_tokens=min(self.max_tokens - 1, 2 * longest + 8),
            max_length=None,
            **self.codec.generation(task),
        )
        repeated = [source for source in sources for _ in range(count)]
        texts = self.codec.decode(ids, repeated)
        return [texts[i : i + count] for i in range(0, len(texts), count)]

    def save(self, folder: Path) -> dict[str, Any]:
        """Write weights and tokenizers; what `load` needs to know."""
        self.model.save_pretrained(folder)
        sizes = {"num_beams": self.num_beams, "max_tokens": self.max_tokens}
        return {**sizes, **self.codec.save(folder)}

    @classmethod
    def load(cls, folder: Path, facts: Mapping[str, Any]) -> BeamSearch:
        """What `save` wrote, for use; weights are safetensors and nothing in the folder is run."""
        model = AutoModelForSeq2SeqLM.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False
        )
        return cls(
            model=model.eval(),
            codec=Codec.load(folder, facts),
            num_beams=int(facts["num_beams"]),
            max_tokens=int(facts["max_tokens"]),
        )

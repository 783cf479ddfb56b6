"""From sentences to token ids and back; placeholders stay whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

PLACEHOLDER = re.compile(r"\{[^{}\s]+\}")
"""Such as `{entity_name}`: filled in later by a program, so never to be translated."""
_MASK = re.compile(r"\{(\d+)\}")
_MASKS = tuple(f"{{{i}}}" for i in range(8))
_PAD, _END = "<pad>", "</s>"


def mask(text: str, names: Sequence[str]) -> str:
    """The text with each placeholder as its number in `names`; others stay as they are.

    Example:
        >>> mask("{device} of {area}", ["{area}", "{device}"])
        '{1} of {0}'
    """
    return PLACEHOLDER.sub(lambda m: f"{{{names.index(m[0])}}}" if m[0] in names else m[0], text)


def unmask(text: str, names: Sequence[str]) -> str:
    """The text with names for numbers; a number without a name stays.

    Example:
        >>> unmask("{1} of {0} in {2}", ["{area}", "{device}"])
        '{device} of {area} in {2}'
    """
    return _MASK.sub(lambda m: names[int(m[1])] if int(m[1]) < len(names) else m[0], text)


def placeholders(text: str) -> list[str]:
    """The different placeholders of a text, in order of appearance.

    Example:
        >>> placeholders("{b} and {a} and {b}")
        ['{b}', '{a}']
    """
    return list(dict.fromkeys(PLACEHOLDER.findall(text)))


def train_bpe(
    texts: Iterable[str], vocab_size: int, languages: Sequence[str]
) -> PreTrainedTokenizerFast:
    """A byte-level BPE vocabulary in which no text is unknown and masks are tokens of their own.

    Decoding gives back exactly what was encoded. A token `<2de>` for each target language starts
    its translations.

    Args:
        texts: masked; training rows only.
        vocab_size: tokens at most, in [300, inf).
        languages: the target languages.

    Source: Sennrich et al., "Neural machine translation of rare words with subword units", 2016.

    Example:
        >>> tokenizer = train_bpe(["turn on {0}"], 300, ["de"])
        >>> ids = tokenizer("turn {0} on ☃")["input_ids"]
        >>> tokenizer.decode(ids, skip_special_tokens=True)
        'turn {0} on ☃'
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(_MASKS),
        special_tokens=[_PAD, _END, *(f"<2{language}>" for language in languages)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_MASK.sub(" ", text) for text in texts), trainer)
    add_masks(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, tokenizer.token_to_id(_END))]
    )
    kind: Any = PreTrainedTokenizerFast  # transformers leaves it untyped
    made: PreTrainedTokenizerFast = kind(tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END)
    return made


def add_masks(tokenizer: Any) -> None:
    """Make masks tokens of their own in a tokenizer that has other ones."""
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in _MASKS])


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """What a translation model reads and writes.

    Args:
        source: tokenizer of the sources.
        target: tokenizer of the translations; may be the same.
        starts: target language → id of the token that starts a translation.
        prefixes: target language → what is put before the source.
        codes: language → the tokenizers' own name of it, which also is the first token written.
    """

    source: Any
    target: Any
    starts: Mapping[str, int]
    prefixes: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, str] = field(default_factory=dict)

    def encode_sources(self, texts: Sequence[str], task: str) -> list[list[int]]:
        """Token ids of sources, not cut; placeholders are masked by their own order."""
        self._tell_languages(task)
        prefix = self.prefixes.get(task.split("-")[1], "")
        masked = [prefix + mask(text, placeholders(text)) for text in texts]
        ids: list[list[int]] = self.source(masked, verbose=False)["input_ids"]
        return ids

    def encode_targets(self, pairs: Sequence[tuple[str, str]], task: str) -> list[list[int]]:
        """Start token and token ids of translations, not cut; masked by the sources' order."""
        self._tell_languages(task)
        start = self.starts[task.split("-")[1]]
        masked = [mask(target, placeholders(source)) for source, target in pairs]
        ids = self.target(text_target=masked, verbose=False)["input_ids"]
        return [[start, *row] for row in ids]

    def decode(self, ids: torch.Tensor, sources: Sequence[str]) -> list[str]:
        """Translations from token ids (B, N), with the sources' placeholders filled in."""
        texts = self.target.batch_decode(ids, skip_special_tokens=True)
        return [
            unmask(text.strip(), placeholders(source))
            for text, source in zip(texts, sources, strict=True)
        ]

    def generation(self, task: str) -> dict[str, int]:
        """How `generate` is told the target language."""
        language = task.split("-")[1]
        told = {"decoder_start_token_id": self.starts[language]}
        if language in self.codes:
            first = self.target.convert_tokens_to_ids(self.codes[language])
            told["forced_bos_token_id"] = first
        return told

    def _tell_languages(self, task: str) -> None:
        source, target = task.split("-")
        for tokenizer in (self.source, self.target) if self.codes else ():
            tokenizer.src_lang, tokenizer.tgt_lang = self.codes[source], self.codes[target]

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the tokenizers, the sources' to `source/` if it is its own; what `load` needs."""
        self.target.save_pretrained(folder)
        if self.source is not self.target:
            self.source.save_pretrained(folder / "source")
        facts = {"starts": self.starts, "prefixes": self.prefixes, "codes": self.codes}
        return {name: dict(fact) for name, fact in facts.items()}

    @classmethod
    def load(cls, folder: Path, facts: Mapping[str, Any]) -> Codec:
        """What `save` wrote; nothing in the folder is run."""
        target = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        source = target
        if (folder / "source").is_dir():
            source = AutoTokenizer.from_pretrained(folder / "source", trust_remote_code=False)
        told = {name: facts[name] for name in ("starts", "prefixes", "codes")}
        return cls(source=source, target=target, **told)


def collate_ids(rows: Sequence[torch.Tensor], pad: int, bucket: int) -> torch.Tensor:
    """Rows of token ids as one tensor (B, N), N a multiple of `bucket`.

    Example:
        >>> collate_ids([torch.tensor([5, 6, 7]), torch.tensor([8])], pad=0, bucket=4)
        tensor([[5, 6, 7, 0],
                [8, 0, 0, 0]])
    """
    ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=pad)
    return torch.nn.functional.pad(ids, (0, -ids.shape[1] % bucket), value=pad)


def cut(ids: list[int], most: int) -> torch.Tensor:
    """At most so many ids; the last one, which ends the sentence, is kept.

    Example:
        >>> cut([4, 5, 6, 1], 3)
        tensor([4, 5, 1])
    """
    return torch.tensor(ids if len(ids) <= most else [*ids[: most - 1], ids[-1]])

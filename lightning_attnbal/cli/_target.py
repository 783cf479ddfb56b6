"""From what was typed to a model and a batch."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator


def parse_arguments(pairs: Sequence[str], option: str = "arg") -> dict[str, Any]:
    """Read `key=value` pairs; a value that is no Python literal is text.

    Raises:
        ValueError: a pair has no `=`.

    Example:
        >>> parse_arguments(["num_classes=10", "name=small"])
        {'num_classes': 10, 'name': 'small'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            msg = f"Expected `--{option}` to be key=value, but got {pair!r}."
            raise ValueError(msg)
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found


def parse_shape(text: str, name: str = "shape") -> tuple[int, ...]:
    """Read sizes such as "8,3,224,224".

    Raises:
        ValueError: one of them is not a positive integer.

    Example:
        >>> parse_shape("8,128")
        (8, 128)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        msg = f"Expected `--{name}` to be positive integers such as 8,3,224,224, but got {text!r}."
        raise ValueError(msg)
    return tuple(map(int, parts))


def load_model(target: str, arguments: Mapping[str, Any], task: str = "AutoModel") -> nn.Module:
    """The model that `target` names, with new weights, in train mode.

    Args:
        target: `package.module:name` of a model or of what makes one, `hf:model_type` such as
            `hf:bert`, or the path of a Hugging Face config.json.
        arguments: what to call it with; for Hugging Face, changes to the configuration.
        task: Hugging Face class that makes the model, such as `AutoModelForSequenceClassification`.

    Raises:
        ValueError: the target does not exist or makes no model.
    """
    if target.startswith("hf:"):
        model = _hugging_face({"model_type": target[3:], **arguments}, task)
    elif target.endswith(".json"):
        config = json.loads(Path(target).read_text(encoding="utf-8"))
        model = _hugging_face({**config, **arguments}, task)
    else:
        model = _imported(target, arguments)
    if not isinstance(model, nn.Module):
        msg = f"Expected {target!r} to make a torch.nn.Module, but got {type(model).__name__}."
        raise ValueError(msg)
    return model.train()


def _hugging_face(settings: dict[str, Any], task: str) -> Any:
    """A transformers model from the settings of its configuration; nothing is downloaded."""
    import transformers

    model_type = settings.pop("model_type", "")
    known = transformers.CONFIG_MAPPING
    if model_type not in known:
        msg = (
            f"Expected a Hugging Face model type such as 'bert' or 'gpt2', but got {model_type!r}."
        )
        raise ValueError(msg)
    maker: Any = getattr(transformers, task, None)
    if not hasattr(maker, "from_config"):
        msg = f"Expected `--hf-class` to be an AutoModel class of transformers, but got {task!r}."
        raise ValueError(msg)
    return maker.from_config(transformers.AutoConfig.for_model(model_type, **settings))


def _imported(target: str, arguments: Mapping[str, Any]) -> Any:
    found = _find("TARGET", target, "'package.module:name', 'hf:bert' or a .json file")
    return found if isinstance(found, nn.Module) else found(**arguments)


def _find(what: str, target: str, known: str = "'package.module:name'") -> Any:
    """What an import path names; `what` is how the command line calls it."""
    module, colon, name = target.partition(":")
    if not colon:
        msg = f"Expected {what} to be {known}, but got {target!r}."
        raise ValueError(msg)
    with _working_folder_first():
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            msg = f"Expected {what} to be importable, but {error}."
            raise ValueError(msg) from error
    for part in name.split("."):
        if not hasattr(found, part):
            msg = f"Expected {module!r} to have {name!r}, but it has not."
            raise ValueError(msg)
        found = getattr(found, part)
    return found


@contextmanager
def _working_folder_first() -> Iterator[None]:
    """Import from the working folder too, as `python -m` does."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.pop(0)


def find_forward(target: str | None) -> Callable[[nn.Module, Any], Any] | None:
    """The function that `--forward` names, None for None.

    Raises:
        ValueError: it does not exist or cannot be called.
    """
    if target is None:
        return None
    found = _find("`--forward`", target)
    if not callable(found):
        msg = f"Expected `--forward` to name a function, but got a {type(found).__name__}."
        raise ValueError(msg)
    forward: Callable[[nn.Module, Any], Any] = found
    return forward


def find_batches(
    model: nn.Module, shapes: Sequence[str], tokens: str | None, targets: Sequence[str]
) -> tuple[Any, Any]:
    """A batch and a second one: two random ones, or those that `--batch` names.

    The second is None where `--batch` names one only.

    Raises:
        ValueError: there are more than two, both kinds or none, or one cannot be had.
    """
    if not targets:
        if not shapes and tokens is None:
            msg = "Expected one of `--shape`, `--tokens` and `--batch`, but got none."
            raise ValueError(msg)
        return make_batch(model, shapes, tokens), make_batch(model, shapes, tokens)
    if shapes or tokens is not None or len(targets) > 2:
        msg = "Expected `--batch` once or twice, and no `--shape` or `--tokens` beside it."
        raise ValueError(msg)
    found = [_find("`--batch`", target) for target in targets]
    first, *rest = (made() if callable(made) else made for made in found)
    return first, rest[0] if rest else None


def make_optimizer(name: str, model: nn.Module) -> Optimizer:
    """An optimizer of a class in torch.optim, with its defaults.

    Raises:
        ValueError: there is no such class.
    """
    kind: Any = getattr(torch.optim, name, None)
    if not isinstance(kind, type) or Optimizer not in kind.__mro__[1:]:
        msg = f"Expected `--optimizer` to be a class in torch.optim, but got {name!r}."
        raise ValueError(msg)
    made: Optimizer = kind(model.parameters())
    return made


def make_batch(model: nn.Module, shapes: Sequence[str], tokens: str | None) -> Any:
    """A random batch: one float tensor per shape, or token ids.

    Args:
        model: whom it is for; names its token argument and its vocabulary.
        shapes: sizes of the positional inputs, such as "8,3,224,224".
        tokens: (batch, tokens), such as "8,128".

    Raises:
        ValueError: neither or both are given, or one cannot be read.
    """
    if bool(shapes) == (tokens is not None):
        msg = "Expected one of `--shape` and `--tokens`, but got both or none."
        raise ValueError(msg)
    if tokens is None:
        return tuple(torch.randn(parse_shape(shape)) for shape in shapes)
    ids = torch.randint(_vocabulary(model), parse_shape(tokens, "tokens"))
    return _token_batch(model, ids)


def _token_batch(model: nn.Module, ids: Tensor) -> Any:
    config = getattr(model, "config", None)
    if config is None:
        return (ids,)
    both = getattr(config, "is_encoder_decoder", False)
    return {"input_ids": ids, "decoder_input_ids": ids} if both else {"input_ids": ids}


def _vocabulary(model: nn.Module) -> int:
    """How many tokens the first embedding knows."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            return module.num_embeddings
    msg = "Expected `--tokens` to be used with a model that has an embedding; use `--shape`."
    raise ValueError(msg)

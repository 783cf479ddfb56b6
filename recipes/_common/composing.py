"""From the command line to a typed configuration, and from a `_target_` to an object."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipes._common.config import TrainConfig

_RECIPES = Path(__file__).resolve().parents[1]
CONF = next(p for p in (_RECIPES / "conf", _RECIPES.parent / "conf") if p.is_dir())
"""The folder of `train.yaml` and its groups: inside an installed package, beside a checkout's."""


def store_schema() -> None:
    """Tell Hydra the schema that no recipe owns."""
    ConfigStore.instance().store(name="train_schema", node=TrainConfig)


def typed(raw: DictConfig) -> TrainConfig:
    """The composed configuration as a typed object.

    Raises:
        ValueError: a value that has no default was not given.
    """
    missing = sorted(OmegaConf.missing_keys(raw))
    if missing:
        msg = f"Expected `{missing[0]}` to be given, as in `{missing[0]}=...`, but it is missing."
        raise ValueError(msg)
    return cast(TrainConfig, OmegaConf.to_object(raw))


def explain(error: Exception) -> str:
    """One message for what Hydra or OmegaConf refused, with the keys that are allowed there."""
    if str(error).startswith("You must specify"):
        names = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
        return f"Expected `experiment=` to be one of {', '.join(names)}, but none was given."
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [str(error).splitlines()[0]]
    if isinstance(cause, OmegaConfBaseException):
        schema = cause.object_type
        parent = str(cause.full_key or "").rpartition(".")[0]
        if cause.msg and cause.msg.splitlines()[0] != lines[0]:
            lines.append(cause.msg.splitlines()[0] + ".")
        if str(cause.key) not in _keys(schema) and _keys(schema):
            where = f" of `{parent}`" if parent else ""
            lines.append(f"Expected one of the keys{where}: {', '.join(_keys(schema))}.")
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        lines = [line for line in lines if "provider=" not in line and "search path" not in line]
    return "\n".join(lines)


def _keys(schema: Any) -> list[str]:
    if not dataclasses.is_dataclass(schema):
        return []
    return [f.name for f in dataclasses.fields(schema) if f.name != "_target_"]


def build(config: Any, allowed: Collection[str], *inputs: Any) -> Any:
    """Call what the configuration's `_target_` names with the configuration and `inputs`.

    The name must be one of `allowed`, letter by letter; otherwise nothing is imported. A prefix
    would not do: `recipes.train.os.system` has a harmless one.

    Raises:
        ValueError: the name is not allowed.

    Example:
        >>> from recipes._common.config import DataConfig
        >>> build(DataConfig(_target_="os.system"), ["recipes.text.TextData"])
        Traceback (most recent call last):
        ValueError: Expected `_target_` to be one of 'recipes.text.TextData', but got 'os.system'.
    """
    target = config._target_
    if target not in allowed:
        known = ", ".join(map(repr, sorted(allowed)))
        msg = f"Expected `_target_` to be one of {known}, but got {target!r}."
        raise ValueError(msg)
    return get_object(target)(config, *inputs)

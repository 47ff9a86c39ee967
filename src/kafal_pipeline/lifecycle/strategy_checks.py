"""Checks the query, update, model and device that parameters name, before a run begins."""

from __future__ import annotations

import difflib
import os
import re

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import DOTTED_PATH, check_name
from kafal_pipeline.config import Config, ModelConfig, Strategy
from kafal_pipeline.config.resolve import ConfigError
from kafal_pipeline.models import MODELS
from kafal_pipeline.query import QUERIES
from kafal_pipeline.update import UPDATES


def check_strategies(config: Config) -> None:
    """Check names without importing anything; options, which are the classes' own, by making an instance.

    What is wrong with them shows before the results of an earlier run make room.
    """
    problems = []
    for kind, strategy, entries in (("query", config.query, QUERIES), ("update", config.update, UPDATES)):
        try:
            check_name(kind, strategy.name, entries)
            if strategy.options or strategy.name not in entries:
                _make(kind, strategy)
        except UserError as error:
            problems.append(_keyed(kind, str(error).removeprefix(f"{kind}: ")))
    try:
        check_name("model", config.model.name, MODELS)
        if config.model.name not in MODELS or config.model.options or config.model.pretrained is not None:
            from kafal_pipeline.models.factory import check

            _check_weights(config.model.pretrained)
            check(config.model)
    except UserError as error:
        key, sentence = _keyed("model.name", str(error).removeprefix("model: "))
        near = difflib.get_close_matches(key.removeprefix("model."), ModelConfig.model_fields, n=1)
        unknown = "unknown option" in sentence and near and near[0] not in sentence
        problems.append((key, f"{sentence} Did you mean {near[0]!r}?" if unknown else sentence))
    if config.training.device not in {"auto", "cpu"}:
        from kafal_pipeline.training.devices import choose_device

        try:
            choose_device(config.training.device)
        except UserError as error:
            problems.append(("training.device", str(error).removeprefix("training.device: ")))
    if problems:
        raise ConfigError(problems)


def _make(kind: str, strategy: Strategy) -> None:
    if kind == "query":
        from kafal_pipeline.query.factory import make_query

        make_query(strategy)
    else:
        from kafal_pipeline.update.factory import make_update

        make_update(strategy)


def names_own_class(config: Config) -> bool:
    """Tell whether the run's query, update or model, or a part of one, may be a user's own class."""
    options = [str(value) for strategy in (config.query, config.update) for value in strategy.options.values()]
    names = [(config.query.name, QUERIES), (config.update.name, UPDATES), (config.model.name, MODELS)]
    return any(name not in entries for name, entries in names) or any(map(DOTTED_PATH.search, options))


def _check_weights(path: str | None) -> None:
    if path is None:
        return
    from safetensors import SafetensorError, safe_open  # only where weights are loaded

    if not os.path.isfile(path):
        raise UserError(f"model.pretrained: there is no file {os.path.abspath(path)!r}.")
    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"model.pretrained: {path} is no safetensors file ({error}); allowed: one with the weights of model.name."
        ) from error


def _keyed(key: str, message: str) -> tuple[str, str]:
    """Return the message with its key: its own where it begins with one, such as ``model.width: ...``."""
    own = re.match(r"((?:query|update|model)(?:\.\w+)+): (.*)", message, re.DOTALL)
    return (own[1], own[2]) if own else (key, message)

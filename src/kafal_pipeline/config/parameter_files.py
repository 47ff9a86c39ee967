"""Parameter files: which of them holds a key, and which is broken."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kafal_pipeline.common.errors import UserError, did_you_mean

PARAMS = "--params"  # what messages call the command line's parameters

NOT_DECIMAL = re.compile(r"[-+]?(0[0-9_]+|0[bx][0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""Numbers that YAML 1.1 does not read as they look: 010 is 8, 08 a text, 1:30 is 90."""


def merged(config_loader: Any) -> Mapping[str, Any]:
    """Return the merged parameters, or say which environment is not there, or which file cannot be read and why."""
    try:
        parameters = config_loader["parameters"]
    except Exception as error:  # a broken file can provoke errors of YAML, OmegaConf, Kedro and Python itself
        conf = Path(config_loader.conf_source)
        if config_loader.env and conf.is_dir() and not (conf / str(config_loader.env)).is_dir():
            names = [folder.name for folder in conf.glob("*/") if folder.is_dir()]
            hint = did_you_mean(config_loader.env, names)
            raise UserError(f"--env: there is no folder {conf / str(config_loader.env)}. {hint}") from None
        for file in _parameter_files(config_loader):
            problem = unreadable(file)
            if problem:
                raise UserError(f"{_shown(conf, file)}: cannot be read as YAML keys and values: {problem}") from error
        written = [(PARAMS, config_loader.runtime_params or {})]
        written += [(_shown(conf, file), _read(file)) for file in _parameter_files(config_loader)]
        for place, (name, values) in enumerate(written):
            for _, others in written[place + 1 :]:
                for clash in _clashes(values, others):
                    raise UserError(f"{name}: {clash}") from error
        key = getattr(error, "full_key", None)
        if key:
            sentence = " ".join(str(getattr(error, "msg", error)).split())
            raise UserError(f"{source(config_loader, key)}: {key}: {sentence}") from error
        raise
    for file in _parameter_files(config_loader):
        if number := misread(file.read_text(encoding="utf-8")):
            raise UserError(f"{_shown(Path(config_loader.conf_source), file)}: {number}")
    return parameters


def misread(text: str) -> str | None:
    """Return what is wrong with a number of a YAML text that is not decimal; None if all are.

    >>> misread("[10, 010]")
    'found 010; write a number in decimal digits without leading zeros, or a text in quotes.'
    >>> misread("[0, 1_000, 1e3, 0.05, '010', 0-9]")
    """
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.ScalarToken) and token.plain and NOT_DECIMAL.fullmatch(token.value):
            return f"found {token.value}; write a number in decimal digits without leading zeros, or a text in quotes."
    return None


def _clashes(values: Mapping[str, Any], others: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Yield the keys at which a list and a section meet, which cannot be merged."""
    for name, value in values.items():
        other = others.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from _clashes(value, other, f"{section}{name}.")
        elif isinstance(value, Mapping | list) and isinstance(other, Mapping | list) and type(value) is not type(other):
            kind = "a section with keys" if isinstance(other, Mapping) else "a list"
            yield f"{section}{name}: found {value!r}; it must be {kind}, such as {other!r}."


def broken(conf: Path, environments: list[str]) -> str | None:
    """Return which file of these environments, of parameters or of anything else, cannot be read; None if all can."""
    for environment in environments:
        for file in sorted((conf / environment).glob("**/*.y*ml")):
            problem = unreadable(file)
            if problem:
                return f"{_shown(conf, file)}: cannot be read as YAML keys and values: {problem}"
    return None


def unreadable(file: Path) -> str:
    """Return what is wrong with a file of parameters, in one line; nothing if it can be read."""
    from omegaconf import DictConfig, OmegaConf  # only where a message is made

    try:
        content = OmegaConf.load(file)
    except Exception as error:  # of YAML, OmegaConf and Python: a broken file can provoke any
        return " ".join(f"{type(error).__name__}: {error}".split())
    return "" if isinstance(content, DictConfig) else f"found a {type(content).__name__}; it must be a mapping."


def source(config_loader: Any, key: str) -> str:
    """Return where a key's value was read: the command line, or the last file in Kedro's order that holds it."""
    parts = key.split(".")
    given = config_loader.runtime_params or {}
    if any(_holds(given, parts[:length]) for length in range(len(parts), 1 if len(parts) > 1 else 0, -1)):
        return PARAMS
    conf = Path(config_loader.conf_source)
    contents = [(file, _read(file)) for file in _parameter_files(config_loader)]
    for length in range(len(parts), 0, -1):
        for file, content in contents:
            if _holds(content, parts[:length]):
                return _shown(conf, file)
    return f"{conf.name}/{config_loader.base_env}/parameters.yml"


def _parameter_files(config_loader: Any) -> list[Path]:
    """Return the files that hold parameters, those that go before others first."""
    folders = [config_loader.env or config_loader.default_run_env, config_loader.base_env]
    conf = Path(config_loader.conf_source)
    return [file for folder in folders for file in sorted((conf / str(folder)).glob("**/parameters*.y*ml"))]


def _shown(conf: Path, file: Path) -> str:
    return f"{conf.name}/{file.relative_to(conf).as_posix()}"


def _read(file: Path) -> Mapping[str, Any]:
    from omegaconf import OmegaConf  # only where a message is made

    content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    return content if isinstance(content, dict) else {}  # type: ignore[return-value]


def _holds(values: Any, parts: list[str]) -> bool:
    """Tell whether a key is written in `values`, or a value of its own stands for the section that it is in."""
    for part in parts:
        if isinstance(values, str | bool | int | float | list):
            return True
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True

"""Maps names to classes, imported on first use: listing costs no import, a user's class needs no registration."""

import contextlib
import difflib
import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

from kafal_pipeline.common.errors import UserError, did_you_mean
from kafal_pipeline.common.options import check_options
from kafal_pipeline.common.users_code import unchanged

DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class Entry:
    """Where a class stands (``package.module:Class``), the options a name presets, and one line about it."""

    target: str
    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)


def check_name(kind: str, name: str, entries: Mapping[str, Entry]) -> None:
    """Raise UserError unless `name` is registered or has the form of a dotted path; imports nothing."""
    if name not in entries and not DOTTED_PATH.fullmatch(name):
        raise UserError(
            f"{kind}: found {name!r}. {did_you_mean(name, entries)} Or the dotted path of a class of your own, "
            f"such as my_package.my_module.My{kind.capitalize()}."
        )


def create(kind: str, name: str, options: Mapping[str, Any], entries: Mapping[str, Entry]) -> Any:
    """Return an instance of the class that `name`, a key of `entries` or a dataclass's dotted path, stands for.

    `kind`: the parameter's key, for messages. `options`: the dataclass's fields; they go before those that the name
    presets. Raises `UserError` if the name or an option is unknown, or an option's value is not allowed.
    """
    cls = load(kind, name, entries)
    preset = entries[name].options if name in entries else {}
    values = {**preset, **options}
    if not is_dataclass(cls):
        raise UserError(f"{kind}: found {name!r}, which is not a dataclass; its fields are its options.")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UserError(lacking(kind, name, cls, missing[0]))
    try:
        return cls(**check_options(kind, name, _fields(cls), values))
    except (Exception, SystemExit) as error:  # in a user's annotations, or in `__post_init__`
        if isinstance(error, UserError) or name in entries:
            raise
        raise UserError(f"{kind}: making {name!r} with its options failed: {error!r}") from error


def _fields(cls: Any) -> dict[str, tuple[Any, Any]]:
    """Return the annotation of each option of a dataclass, and ``...`` where there is no default."""
    hints = get_type_hints(cls, include_extras=True)
    return {
        item.name: (hints[item.name], ... if item.default is item.default_factory is MISSING else None)
        for item in fields(cls)
        if item.init
    }


def lacking(kind: str, name: str, cls: type, method: str) -> str:
    """Return the message about a class without a method that it needs, with the one that looks like a misspelt one."""
    own = [key for key, value in vars(cls).items() if callable(value) and not key.startswith("__")]
    near = difflib.get_close_matches(method, own, n=1)
    hint = f" It has `{near[0]}`; did you mean `{method}`?" if near else ""
    return f"{kind}: found {name!r}, which has no method `{method}`.{hint}"


def keyword_options(
    kind: str, name: str, function: Callable[..., Any], values: Mapping[str, Any], given: Collection[str]
) -> dict[str, Any]:
    """Return `values`, as the user wrote them, as `function` or a class wants them; its options are all but `given`.

    `kind`, `name`: for messages: the parameter's key, and what `function` is called there. Raises `UserError` if an
    option is unknown or missing, or its value is not allowed.

    >>> def focal(logits, *, gamma: float = 2.0): ...
    >>> keyword_options("loss", "focal", focal, {"gamma": 3}, given=["logits"])
    {'gamma': 3.0}
    """
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    if any(item.kind is item.VAR_KEYWORD for item in parameters):
        return dict(values)
    annotations: dict[str, tuple[Any, Any]] = {
        item.name: (
            Any if item.annotation is item.empty else item.annotation,
            ... if item.default is item.empty else item.default,
        )
        for item in parameters
        if item.name not in given and item.kind is not item.VAR_POSITIONAL
    }
    return check_options(kind, name, annotations, values)


def load(kind: str, name: str, entries: Mapping[str, Entry]) -> type[Any]:
    """Import and return the class that `name` stands for; UserError if there is none."""
    check_name(kind, name, entries)
    target = entries[name].target if name in entries else ":".join(name.rsplit(".", 1))
    module_name, class_name = target.split(":")
    try:
        with contextlib.nullcontext() if name in entries else unchanged():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{kind}: found {name!r}, but there is no module {error.name!r}. "
                "Is its folder on PYTHONPATH, or installed in this environment?"
            ) from None
        raise UserError(f"{kind}: importing {module_name!r} failed: {error}") from error
    except (Exception, SystemExit) as error:  # a user's file can fail in every way
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = (
            f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else f"{where.filename}:{where.lineno}"
        )
        raise UserError(f"{kind}: importing {module_name!r} failed at {place}: {error!r}") from error
    try:
        cls = getattr(module, class_name)
    except AttributeError:
        raise UserError(
            f"{kind}: found {name!r}, but the module {module_name!r} has no class {class_name!r}."
        ) from None
    if not isinstance(cls, type):
        raise UserError(f"{kind}: found {name!r}, which is no class.")
    return cls

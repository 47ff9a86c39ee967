"""Digest of the code that a run's results depend on.

That code is, of this package, what the run's query, update and model and the federation import of the folders in
`FOLDERS`; of a user's own class, every file of its package, and of those packages of the user's own that it imports.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kafal_pipeline.common.registry import Entry
from kafal_pipeline.config import Config
from kafal_pipeline.models import MODELS
from kafal_pipeline.query import QUERIES
from kafal_pipeline.runs.users_files import files_of, is_users, strings_in
from kafal_pipeline.update import UPDATES

PACKAGE = "kafal_pipeline"
HERE = Path(__file__).parents[1]

FOLDERS = (
    "data.pools",  # the images and the split are hashed, not how they were made
    "evaluation.measures",
    "evaluation.model_measures",
    "federation",
    "models",
    "query",
    "training",
    "update",
)
IGNORED = (
    "models.names",  # of the registries, only the entries that a run uses count
    "query.names",
    "update.names",
)
ROOTS = ("federation.simulation", "federation.trial")
"""Code that every run executes."""

FIRST_ROOT = "query.first"
"""Code that chooses the first samples, unless they are drawn at random."""

QUERY_ROOTS = ("query.base",)
"""Code that every query is made of."""


def sources_digest(config: Config) -> str:
    """Return a digest of the code that the results of a run with this configuration depend on.

    It is made of the modules' syntax trees: comments, docstrings, layout and the names of this package's modules do not
    matter, nor do strategies that the configuration does not name.
    """
    return _digest(code_parts(config))


def code_parts(config: Config) -> tuple[str, ...]:
    """Return what the digest is made of: for each module and strategy its name, a zero and what stands for its code."""
    used = {
        **_named("query", config.query.name, config.query.options, QUERIES),
        **_named("update", config.update.name, config.update.options, UPDATES),
        **_named("model", config.model.name, config.model.options, MODELS),
    }
    drawn = config.budget.initial_query == "random"
    return _parts(ROOTS if drawn else (*ROOTS, FIRST_ROOT), used)


def query_digest(name: str, options: Mapping[str, Any]) -> str:
    """Return a digest of a query's options and of the code that it chooses by, without that of the models it asks."""
    parts = _parts(QUERY_ROOTS, _named("query", name, options, QUERIES))
    return _digest([*parts, f"options\0{json.dumps(options, sort_keys=True)}"])


def edited(config: Config, before: Iterable[str]) -> list[str]:
    """Return the names of what is not on disk as it was when `before` were the parts; all that cannot be read."""
    try:
        now = code_parts(config)
    except (OSError, SyntaxError, ValueError) as error:
        return [str(error)]
    return sorted({line.partition("\0")[0] for line in {*before}.symmetric_difference(now)})


def _parts(roots: Iterable[str], used: Mapping[str, Entry]) -> tuple[str, ...]:
    modules = {entry.target.partition(":")[0] for entry in used.values()}
    ours = {module for module in modules if _is_ours(module)}
    files = _of_this_package({*(f"{PACKAGE}.{root}" for root in roots), *ours}) | files_of(modules - ours)
    lines = [f"{name}\0{_code(path, path.stat().st_mtime_ns)}" for name, path in sorted(files.items())]
    lines += [
        f"{name}\0{entry.target.rpartition(':')[2]} {json.dumps(dict(entry.options))}"
        for name, entry in sorted(used.items())
    ]
    return tuple(lines)


def _digest(parts: Iterable[str]) -> str:
    """Return a digest of what stands behind the names of the parts: a module that moves is the same code."""
    return hashlib.sha256("\n".join(sorted(part.partition("\0")[2] for part in parts)).encode()).hexdigest()


def _named(kind: str, name: str, options: Mapping[str, Any], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the registry entries, or what stands for them, of a strategy and of those that its options name.

    An option may name another strategy, such as a composition's score. A user's own class may have such a default, so
    that every string in its files counts as well.
    """
    used: dict[str, Entry] = {}
    waiting: list[tuple[str, Mapping[str, Any]]] = [(name, options)]
    while waiting:
        item, written = waiting.pop()
        key, module = f"{kind}.{item}", item.rpartition(".")[0]
        if key in used:
            continue
        if item in entries:
            used[key] = entries[item]
            values = [*_strings([{**used[key].options, **written}])]
        elif "." in item and item.isascii() and is_users(item.partition(".")[0]):
            used[key] = Entry(f"{module}:{item.rpartition('.')[2]}", "")
            values = [
                *_strings([written]),
                *(text for path in files_of({module}).values() for text in strings_in(path)),
            ]
        else:
            continue
        waiting += [(other, {}) for other in values]
    return used


def _of_this_package(roots: set[str]) -> dict[str, Path]:
    """Return the roots and the modules of `FOLDERS` that they import, directly or not, and their files."""
    files = {_module_name(path): path for path in HERE.rglob("*.py")}
    graph = _graph(tuple((name, path.stat().st_mtime_ns) for name, path in sorted(files.items())))
    found = roots.union(*(graph.find_upstream_modules(root) for root in roots))
    return {name: files[name] for name in found if _within(name, FOLDERS) and not _within(name, IGNORED)}


@functools.lru_cache(maxsize=1)
def _graph(_changed: tuple[tuple[str, int], ...]) -> Any:
    import grimp

    return grimp.build_graph(PACKAGE, cache_dir=None, exclude_type_checking_imports=True)


def _module_name(path: Path) -> str:
    parts = path.relative_to(HERE).with_suffix("").parts
    return ".".join([PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)])


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == PACKAGE


def _within(name: str, places: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{PACKAGE}.{place}.") for place in places)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)


@functools.lru_cache(maxsize=1024)
def _code(path: Path, _changed: int) -> str:
    """Return a digest of a file's syntax tree without docstrings, and without the names of this package's modules."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.ImportFrom) and _is_ours(node.module or ""):
            node.module = PACKAGE
    # Imports are sorted by the names of modules, so that a module that moves changes their order.
    lines = [(line, line.lstrip().startswith(f"from {PACKAGE} import ")) for line in ast.unparse(tree).splitlines()]
    ordered = [*sorted(line for line, moves in lines if moves), *(line for line, moves in lines if not moves)]
    return hashlib.sha256("\n".join(ordered).encode()).hexdigest()

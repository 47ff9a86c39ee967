"""Digest of the source files on which a run's results depend."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kafal_pipeline.config import Config
from kafal_pipeline.models import MODELS
from kafal_pipeline.module_files import PACKAGE, definition, file_of, imports, ours, reaches, without_ours
from kafal_pipeline.query import QUERIES
from kafal_pipeline.registry import Entry
from kafal_pipeline.update import UPDATES

ROOTS = (f"{PACKAGE}.pipelines.fal.nodes", f"{PACKAGE}.federation.workers")
"""What every run executes."""

QUERY_ROOTS = (f"{PACKAGE}.query.base",)
"""What every query is made of."""

IGNORED = (
    f"{PACKAGE}.config",  # its values are hashed, not how they are checked
    f"{PACKAGE}.data.store",  # the images are hashed, not how they came to be stored
    f"{PACKAGE}.errors",
    f"{PACKAGE}.federation.checkpoint_files",
    f"{PACKAGE}.federation.checkpoints",  # a run is the same with and without
    f"{PACKAGE}.files",
    f"{PACKAGE}.pipelines.annotations",
    f"{PACKAGE}.pipelines.runtime",  # says of itself that it never changes a result
    f"{PACKAGE}.query.names",  # of the registries, only the entries that a run uses count
    f"{PACKAGE}.update.names",
    f"{PACKAGE}.models.names",
)
"""Modules that no result depends on, with all below them."""


def sources_digest(config: Config) -> str:
    """Return a digest of the code that the results of a run with this configuration depend on.

    It is made of the syntax trees of the modules that the run's query, update, model and the federation import,
    directly or not: comments, docstrings, layout and the names of this package's modules do not matter, nor do other
    strategies.
    """
    return _digest(code_parts(config))


def code_parts(config: Config) -> tuple[str, ...]:
    """Return what the digest is made of: for each module and strategy its name, a zero and what stands for its code."""
    return _parts(ROOTS, _entries(config))


def query_digest(name: str, options: Mapping[str, Any]) -> str:
    """Return a digest of the code that a query chooses by, and of its options; that of the models it asks is not in it.

    Parameters
    ----------
    name, options
        As the configuration's `query` has them.
    """
    parts = _parts(QUERY_ROOTS, _named("query", name, options, QUERIES))
    return _digest([*parts, f"options\0{json.dumps(options, sort_keys=True)}"])


def edited(config: Config, before: Iterable[str]) -> list[str]:
    """Return the names of what is not on disk as it was when `before` were the parts; all that cannot be read."""
    try:
        now = code_parts(config)
    except (OSError, SyntaxError, ValueError) as error:
        return [str(error)]
    return sorted({line.partition("\0")[0] for line in {*before}.symmetric_difference(now)})


def closure(roots: list[str]) -> dict[str, Path]:
    """Return the modules that `roots` import, directly or not, and their files.

    Those of the roots' packages, and of what a user's own modules import, all that is neither installed nor Python's.
    A name that a package re-exports leads to the module that defines it: the rest of the package does not count.
    """
    packages = {root.partition(".")[0] for root in roots}
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        ignored = any(name == other or name.startswith(f"{other}.") for other in IGNORED)
        path = None if ignored or name in found else file_of(name)
        if path is not None:
            found[name] = path
            waiting += imports(name, path, packages)
    return found


def _parts(roots: Iterable[str], used: Mapping[str, Entry]) -> tuple[str, ...]:
    modules = closure([*roots, *(entry.target.partition(":")[0] for entry in used.values())])
    digests = {name: _code_digest(path) for name, path in sorted(modules.items())}
    lines = [
        f"{name}\0{digest} {sorted(f'{item} of {digests.get(origin)}' for origin, item in ours(name, modules[name]))}"
        for name, digest in digests.items()
    ]
    for name, entry in sorted(used.items()):
        lines.append(f"{name}\0{entry.target.rpartition(':')[2]} {json.dumps(dict(entry.options))}")
    return tuple(lines)


def _digest(parts: Iterable[str]) -> str:
    """Return a digest of what stands behind the names of the parts: a module that moves is the same code."""
    return hashlib.sha256("\n".join(sorted(part.partition("\0")[2] for part in parts)).encode()).hexdigest()


def _entries(config: Config) -> dict[str, Entry]:
    """Return the registry entries, or what stands for them, of everything that the configuration names."""
    return {
        **_named("query", config.query.name, config.query.options, QUERIES),
        **_named("update", config.update.name, config.update.options, UPDATES),
        **_named("model", config.model.name, config.model.options, MODELS),
    }


def _named(kind: str, name: str, options: Mapping[str, Any], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the registry entries, or what stands for them, of a strategy and of those that its options name.

    An option may name another strategy, such as a composition's score; so may its default, where it is not written.
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
        elif (item == name or ("." in item and item.isascii())) and file_of(module) is not None:
            used[key] = Entry(f"{module}:{item.rpartition('.')[2]}", "")
        else:
            continue
        values = {**_defaults(*used[key].target.split(":")), **used[key].options, **written}
        waiting += [(other, {}) for other in _strings(list(values.values()))]
    return used


def _defaults(module: str, name: str) -> dict[str, list[str]]:
    """Return, for each field of a dataclass, the strings in its default; read, since importing may take seconds."""
    home, found = definition(module, name)
    if not isinstance(found, ast.ClassDef):
        return {}
    fields: dict[str, list[str]] = {}
    for base in reversed(found.bases):
        if isinstance(base, ast.Name):
            fields |= _defaults(home, base.id)
        elif isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):
            other, _ = definition(home, base.value.id)
            fields |= _defaults(other, base.attr) if reaches(home, other) else {}
    for item in found.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            fields[item.target.id] = _constants(item.value, home)
    return fields


def _constants(value: ast.AST | None, module: str) -> list[str]:
    """Return the strings in an expression, and in what the names in it stand for."""
    found = []
    for node in ast.walk(value) if value is not None else ():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.Name):
            _, other = definition(module, node.id)
            if isinstance(other, ast.Constant) and isinstance(other.value, str):
                found.append(other.value)
    return found


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _code_digest(path: Path) -> str:
    return _digest_of(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _digest_of(path: Path, _changed: int) -> str:
    tree = without_ours(ast.parse(path.read_bytes()))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
                node.body = node.body[1:]
            elif isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()

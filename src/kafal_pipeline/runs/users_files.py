"""Files of a user's own packages, read without importing them."""

from __future__ import annotations

import ast
import functools
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

OURS = "kafal_pipeline"

INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders of installed packages: of these, the versions are noted."""

_STANDARD = tuple(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib"))
"""Folders of Python's own library."""


def files_of(modules: Iterable[str]) -> dict[str, Path]:
    """Return the files of the packages or modules of the user's own that `modules` lie in and import, by name."""
    found: dict[str, Path] = {}
    seen: set[str] = set()
    waiting = [module.partition(".")[0] for module in modules]
    while waiting:
        package = waiting.pop()
        if package in seen or not is_users(package):
            continue
        seen.add(package)
        for name, path in _files(package):
            found[name] = path
            waiting += _imported(path)
    return found


def _files(package: str) -> Iterator[tuple[str, Path]]:
    """Yield name and file of each module of a package, or of the one module."""
    for place in _places(package):
        if place.is_dir():
            for path in place.rglob("*.py"):
                parts = path.relative_to(place).with_suffix("").parts
                yield ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)]), path
        elif place.suffix == ".py":
            yield package, place


def is_users(package: str) -> bool:
    """Tell whether a package or a module of the top level lies where neither Python nor an installer puts any."""
    places = _places(package)
    return (
        bool(places)
        and package != OURS
        and not any(
            INSTALLED.intersection(place.parts) or place.is_relative_to(folder)
            for place in places
            for folder in _STANDARD
        )
    )


def _places(package: str) -> list[Path]:
    """Return the folders of a package, or the file of a module; nothing is imported to find out."""
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    found = [*(spec.submodule_search_locations or ()), *([] if spec.submodule_search_locations else [spec.origin])]
    places = [Path(place) for place in found if place is not None]
    return [place for place in places if place.exists()]  # not "built-in" or "frozen"


def _imported(path: Path) -> list[str]:
    """Return the packages that a file imports anywhere."""
    nodes = list(ast.walk(_tree(path, path.stat().st_mtime_ns)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return [name.partition(".")[0] for name in names]


def strings_in(path: Path) -> list[str]:
    """Return the strings in a file."""
    nodes = ast.walk(_tree(path, path.stat().st_mtime_ns))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@functools.lru_cache(maxsize=1024)
def _tree(path: Path, _changed: int) -> ast.Module:
    return ast.parse(path.read_bytes())

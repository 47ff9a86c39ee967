"""Finds the files of Python modules and the modules they import, without importing them, which may take seconds."""

from __future__ import annotations

import ast
import functools
import importlib.util
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "kafal_pipeline"

INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders of installed packages: of these, the versions are noted."""

_STANDARD = tuple(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib"))
"""Folders of Python's own library."""


@functools.cache
def file_of(name: str) -> Path | None:
    """Return the file of a module of Python code; None if there is none."""
    if _is_ours(name):
        stem = Path(__file__).parent.joinpath(*name.split(".")[1:])
        return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def imports(name: str, path: Path, packages: set[str]) -> list[str]:
    """Return the modules that a module imports anywhere, except for type checkers only.

    Of `packages` only or, where the module is a user's own, of others that are neither installed nor Python's as well.
    """
    users = not _is_ours(name)

    def counts(module: str) -> bool:
        return module.partition(".")[0] in packages or (users and _followed(module))

    imported = []
    for node in _executed(_tree(path, path.stat().st_mtime_ns)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names if counts(alias.name)]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, name, path)
            imported += [_definer(origin, alias.name) for alias in node.names] if counts(origin) else []
    return imported


def ours(name: str, path: Path) -> list[tuple[str, str]]:
    """Return, for each name that a module imports from a module of this package, who defines it and what it is called.

    Examples
    --------
    >>> ours("kafal_pipeline.query.random", file_of("kafal_pipeline.query.random"))[0]
    ('kafal_pipeline.query.base', 'ScoreQuery')
    """
    return [
        (_definer(node.module, alias.name), alias.asname or alias.name)
        for node in _executed(_tree(path, path.stat().st_mtime_ns))
        if isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module)
        for alias in node.names
    ]


def without_ours(tree: ast.Module) -> ast.Module:
    """Return the tree without its `from ... import` of this package's modules, which may move."""

    class _Without(ast.NodeTransformer):
        def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:  # noqa: N802 - the name that ast asks for
            return ast.Pass() if node.module and _is_ours(node.module) else node

    return _Without().visit(tree)


def definition(module: str, name: str, seen: tuple[str, ...] = ()) -> tuple[str, ast.AST | None]:
    """Return the module that defines a name of a module, and the class or value; None if unknown.

    A name that stands for a module leads to that module, and None. `seen` are the modules that led here.
    """
    path = None if module in seen else file_of(module)
    if path is None:
        return module, None
    found = _bound(_tree(path, path.stat().st_mtime_ns), name)
    if not isinstance(found, tuple):
        return module, found
    statement, original = found
    if isinstance(statement, ast.Import):
        return original, None
    origin = _origin(statement, module, path)
    if not reaches(module, origin):
        return origin, None
    if file_of(f"{origin}.{original}") is not None:
        return f"{origin}.{original}", None
    return definition(origin, original, (*seen, module))


def reaches(module: str, other: str) -> bool:
    """Tell whether a module that `module` imports is followed, or of its own package, wherever that lies."""
    return _followed(other) or other.partition(".")[0] == module.partition(".")[0]


def _bound(tree: ast.Module, name: str) -> ast.AST | tuple[ast.Import | ast.ImportFrom, str] | None:
    """Return the class or value that a name stands for, or the statement that imports it and its name there."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return node.value
        elif isinstance(node, ast.Import | ast.ImportFrom):
            original = next((alias.name for alias in node.names if (alias.asname or alias.name) == name), None)
            if original is not None:
                return node, original
    return None


def _is_ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _followed(name: str) -> bool:
    """Tell whether a module is this package's or lies where neither Python nor an installer puts any."""
    return _is_ours(name) or _is_users(name.partition(".")[0])


@functools.cache
def _is_users(package: str) -> bool:
    """Tell whether a package or a module of the top level is a user's own: nothing is imported to find out."""
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError, AttributeError):
        return False
    if spec is None:
        return False
    places = [Path(place) for place in (*(spec.submodule_search_locations or ()), spec.origin) if place is not None]
    files = [place for place in places if place.exists()]  # not "built-in" or "frozen"
    return bool(files) and not any(
        INSTALLED.intersection(file.parts) or file.is_relative_to(folder) for file in files for folder in _STANDARD
    )


def _definer(package: str, item: str) -> str:
    """Return the module that ``from package import item`` is about."""
    if file_of(f"{package}.{item}") is not None:
        return f"{package}.{item}"
    path = file_of(package)
    if path is None or path.name != "__init__.py":
        return package
    for node in ast.walk(_tree(path, path.stat().st_mtime_ns)):
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == item for alias in node.names):
            return _definer(_origin(node, package, path), item)
    return package


def _origin(node: ast.ImportFrom, name: str, path: Path) -> str:
    """Return the absolute name of the module that an import statement of the module `name` reads from."""
    if not node.level:
        return node.module or ""
    base = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    return ".".join([*base[: len(base) - node.level + 1], *([node.module] if node.module else [])])


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those below ``if TYPE_CHECKING:``."""
    children: list[ast.AST] = list(ast.iter_child_nodes(tree))
    if isinstance(tree, ast.If) and ast.unparse(tree.test).endswith("TYPE_CHECKING"):
        children = list(tree.orelse)
    for node in children:
        yield node
        yield from _executed(node)


@functools.lru_cache(maxsize=1024)
def _tree(path: Path, _changed: int) -> ast.Module:
    return ast.parse(path.read_bytes())

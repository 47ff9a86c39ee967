"""Guards every call of a user's own class: mistakes are told as its own, what it changes in the process is undone."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping

from kafal_pipeline.common.errors import NotAllowed, UserError

OURS = "kafal_pipeline"
OTHERS = frozenset({OURS, "numpy", "torch", *sys.stdlib_module_names})  # packages whose classes no user has written
FRAMES = 3  # of the user's own lines, the innermost ones that a message shows


@contextlib.contextmanager
def blamed(where: str, **strategies: object) -> Iterator[None]:
    """Run code of strategies; what goes wrong in a class that is not this package's is an error for the user.

    `where`: client and cycle. `strategies`: by kind, ``query``, ``update`` or ``model``, the objects or classes whose
    code runs. A composition stands for its parts.

    Raises `UserError` with class, client, cycle, the exception and the user's own lines that it came through, whatever
    the exception is, SystemExit too: it travels between processes as what it came from may not. What goes wrong in this
    package's own strategies keeps its traceback, and short memory stays what it is.
    """
    own = [(kind, part) for kind, strategy in strategies.items() for part in _own_parts(strategy)]
    if not own:
        yield
        return
    try:
        with unchanged():
            yield
    except (Exception, SystemExit) as error:
        if isinstance(error, UserError | MemoryError) or type(error).__name__ == "OutOfMemoryError":
            raise
        frames = [
            (
                str(frame.f_globals.get("__name__")),
                traceback.FrameSummary(frame.f_code.co_filename, line, frame.f_code.co_name),
            )
            for frame, line in traceback.walk_tb(error.__traceback__)
        ]
        # Of several classes of the user's, the one whose lines are the innermost; of none, the first.
        names = [name for name, _ in frames]
        kind, part = max(own, key=lambda item: _last(names, _module_of(item[1])))
        root = _root_of(part)
        lines = traceback.format_list([found for name, found in frames if name.partition(".")[0] == root][-FRAMES:])
        said = str(error) if isinstance(error, NotAllowed) else "".join(traceback.format_exception_only(error)).strip()
        raise UserError("\n".join([f"{kind} {name_of(part)}: {where}: {said}", *map(str.rstrip, lines)])) from error


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Put back what is the whole process's, whatever the code inside does to it, but for the global generators.

    The working directory, NumPy's way with floating-point errors, and PyTorch's gradient mode, default type and device,
    number of threads and deterministic algorithms.
    """
    import numpy as np
    import torch

    dtype, device, threads = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with np.errstate(), contextlib.chdir(os.getcwd()), torch.set_grad_enabled(torch.is_grad_enabled()):
            yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)


def own_classes(strategies: Mapping[str, object]) -> list[str]:
    """Return how messages call those of strategies, or of their parts, that are not this package's.

    >>> own_classes({"query": object(), "update": UserError()})
    []
    """
    return [f"{kind} {name_of(part)}" for kind, strategy in strategies.items() for part in _own_parts(strategy)]


def name_of(strategy: object) -> str:
    """Return the dotted path of a strategy's class."""
    return f"{_module_of(strategy)}.{_class_of(strategy).__qualname__}"


def _own_parts(strategy: object) -> list[object]:
    """Return the strategy, or those of its parts, whose class a user has written."""
    parts = list(getattr(strategy, "__dict__", {}).values()) if _root_of(strategy) == OURS else [strategy]
    return [part for part in parts if _root_of(part) not in OTHERS]


def _class_of(strategy: object) -> type:
    return strategy if isinstance(strategy, type) else type(strategy)


def _module_of(strategy: object) -> str:
    return _class_of(strategy).__module__


def _root_of(strategy: object) -> str:
    return _module_of(strategy).partition(".")[0]


def _last(names: list[str], module: str) -> int:
    """Return the place of the innermost frame of a module, or of its package where the module has none."""
    root = module.partition(".")[0]
    exact = [place for place, name in enumerate(names) if name == module]
    return max(exact or [place for place, name in enumerate(names) if name.partition(".")[0] == root], default=-1)

"""Stores named arrays by key: in memory while they are few, in files when they are many, on disk for good on commit."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import sync_file, write_text, writing
from kafal_pipeline.models.state import Arrays

logger = logging.getLogger(__name__)

IN_MEMORY = 64 * 2**20  # bytes that stay in memory: models and momenta of a hundred clients with the default network
KEPT = 2  # commits that stay: the last, and the one before in case the last is damaged
SYNCING = 8  # threads that call fsync at once: file systems serve several calls in about the time of one
_Commits = dict[int, frozenset[str]]  # the files of each commit


class Damaged(UserError):
    """A file of a store is missing, cut short, or not what was written."""


def key_of(kind: str, number: int) -> str:
    """Return the key of a client's or a round's value, such as ``client_00003``."""
    return f"{kind}_{number:05d}"


class Store(MutableMapping[str, Arrays]):
    """Named arrays by key, which must not change once they are stored.

    A value is a safetensors file, written when memory is full or at a commit, and read when it is asked for. A commit
    is a JSON file that lists the values' files. The names of all files end with a digest of their content. Whatever
    writes may raise `CannotWrite`, whatever reads `Damaged`.

    - `folder`: where the files lie; the system's folder for temporary files if None.
    - `owner`: what the values depend on, such as a digest of configuration, data and code. The store opens with the
      last whole commit of this owner, whose description is then `resumed`; all else in the folder is removed. Without
      an owner nothing is durable: the files lie in a temporary folder within `folder`, which goes with this object.
    - `every`: seconds between two commits, at least.
    - `limit`: bytes of arrays in memory, at most.
    """

    def __init__(
        self, folder: Path | None = None, owner: str | None = None, every: float = 0.0, limit: int = IN_MEMORY
    ) -> None:
        self.limit, self.in_memory = limit, 0  # bytes
        self.resumed: dict[str, Any] | None = None
        self._place, self._owner, self._every = Path(folder or tempfile.gettempdir()), owner, every
        self._held: dict[str, Arrays] = {}  # the first stored first
        self._files: dict[str, str] = {}  # file names by key; what has none is in memory alone
        self._commits: _Commits = {}
        self._writer = ThreadPoolExecutor(1, "commit")
        self._written: tuple[int, dict[str, Arrays], Future[tuple[_Commits, dict[str, str]]]] | None = None
        self._last = time.monotonic()
        if owner is not None and self._place.is_dir():
            self._open()

    def __getitem__(self, key: str) -> Arrays:
        if key in self._held:
            return self._held[key]
        from safetensors.numpy import load

        return load(self._content(self._files[key]))

    def __setitem__(self, key: str, arrays: Arrays) -> None:
        """Store a value; those stored first go to files where memory is full."""
        if key in self:
            del self[key]
        self._held[key] = arrays
        self.in_memory += _bytes(arrays)
        while self.in_memory > self.limit:
            oldest = next(iter(self._held))
            if oldest not in self._files:
                self.wait()  # it may be just being written
            if oldest not in self._files:
                with writing(self._place):
                    self._files[oldest] = self._write(oldest, self._held[oldest])
            self.in_memory -= _bytes(self._held.pop(oldest))

    def __delitem__(self, key: str) -> None:
        """Forget a value, and remove its file unless a commit has it."""
        if key not in self:
            raise KeyError(key)
        self.in_memory -= _bytes(self._held.pop(key, {}))
        name = self._files.pop(key, None)
        if name is not None and not any(name in names for names in self._commits.values()):
            (self.folder / name).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._files, **self._held})

    def __len__(self) -> int:
        return len(self._files.keys() | self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held or key in self._files

    @cached_property
    def folder(self) -> Path:
        """The folder of the files, made when it is first asked for."""
        self._place.mkdir(parents=True, exist_ok=True)
        if self._owner is not None:
            return self._place
        self._temporary = tempfile.TemporaryDirectory(prefix=".clients.", suffix=".tmp", dir=self._place)
        return Path(self._temporary.name)

    def export(self, key: str, path: Path) -> None:
        """Put a value into a new file of its own: a link to the file that has it already, where there is one."""
        if key in self._files:
            with contextlib.suppress(OSError):  # of file systems without links
                return os.link(self.folder / self._files[key], path)
        path.write_bytes(_serialised(self[key]))

    @property
    def due(self) -> bool:
        """Whether it is time for a commit."""
        return self._owner is not None and time.monotonic() - self._last >= self._every

    def commit(self, number: int, description: Mapping[str, Any]) -> None:
        """Begin to make all values durable, and a description as JSON has it; values may be replaced meanwhile.

        Numbers ascend from commit to commit. The one before is waited for.
        """
        self.wait()
        self._last = time.monotonic()
        new = {key: arrays for key, arrays in self._held.items() if key not in self._files}
        future = self._writer.submit(self._commit, number, dict(self._files), new, dict(self._commits), description)
        self._commits[number] = frozenset(self._files.values())  # which stay from now on
        self._written = number, new, future

    def wait(self) -> None:
        """Wait until the last commit is on disk."""
        if self._written is None:
            return
        number, new, future = self._written
        future.exception()  # waits; who is interrupted here can wait again
        self._written = None
        del self._commits[number]
        self._commits, files = future.result()
        self._files |= {key: files[key] for key, arrays in new.items() if self._held.get(key) is arrays}

    def _commit(
        self, number: int, files: dict[str, str], new: dict[str, Arrays], commits: _Commits, what: Mapping[str, Any]
    ) -> tuple[_Commits, dict[str, str]]:
        """Write a commit while nobody else writes; return the commits that stay, and its values' files by key."""
        before, durable = frozenset(files.values()), frozenset[str]().union(*commits.values())
        try:
            with writing(self._place):
                files |= {key: self._write(key, arrays) for key, arrays in new.items()}
                with ThreadPoolExecutor(SYNCING) as threads:
                    list(threads.map(sync_file, [self.folder / name for name in {*files.values()} - durable]))
                text = json.dumps({"owner": self._owner, "files": files, "description": what}) + "\n"
                name = f"{number:05d}-{_digest(text.encode())}.json"
                write_text(self.folder / name, text)
            commits[number] = frozenset([name, *files.values()])
        finally:
            commits = self._tidy(commits, before)
        return commits, files

    def _open(self) -> None:
        """Take over the last commit that is whole, and those before it."""
        for path in sorted(self.folder.glob("[0-9]*.json"), reverse=True):
            try:
                content = json.loads(self._content(path.name))
                if content["owner"] != self._owner:
                    continue
                files, number = dict(content["files"]), int(path.name.partition("-")[0])
                if self.resumed is None:
                    for name in files.values():
                        self._content(name)
                    self._files, self.resumed = files, content["description"]
                self._commits[number] = frozenset([path.name, *files.values()])
            except (Damaged, ValueError, KeyError, TypeError) as problem:
                logger.warning("%s: the checkpoint is damaged (%s)", path, problem)
        self._commits = self._tidy(self._commits)

    def _tidy(self, commits: _Commits, others: frozenset[str] = frozenset()) -> _Commits:
        """Return the last commits; remove all but their files and some others."""
        last = dict(sorted(commits.items())[-KEPT:])
        for name in {path.name for path in self.folder.iterdir()} - others.union(*last.values()):
            (self.folder / name).unlink(missing_ok=True)
        return last

    def _content(self, name: str) -> bytes:
        """Return what a file holds, if that is what was written."""
        path = self.folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Damaged(f"{path}: what clients keep cannot be read ({error.strerror}).") from None
        if path.stem.rpartition("-")[2] != _digest(content):
            raise Damaged(f"{path}: what clients keep is damaged.")
        return content

    def _write(self, key: str, arrays: Arrays) -> str:
        """Write a value, not yet durably; return the name of its file."""
        content = _serialised(arrays)
        path = self.folder / f"{key}-{_digest(content)}.safetensors"
        try:
            if not path.exists():  # with the same content
                path.write_bytes(content)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path.name


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


def _serialised(arrays: Arrays) -> bytes:
    from safetensors.numpy import save

    # The library writes an array's memory as it lies, whatever its order.
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()})

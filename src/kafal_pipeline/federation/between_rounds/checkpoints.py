"""Checkpoints of a cycle: the state of training after each round, on disk, so that it can resume from there.

A checkpoint is one file with what changed since the one before: the global model, what the participants keep, and where
everything else lies, which earlier files hold. A federation of a thousand clients with ten active a round thus writes
ten clients. Files are written beside the training by a thread, whole or not at all, and have a digest of their content
in their name, so that damage is noticed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kafal_pipeline.common.files import writing
from kafal_pipeline.federation.between_rounds.checkpoint_files import (
    NUMBERED,
    Damaged,
    arrays_of,
    check,
    files_in,
    index_of,
    meta_of,
    parts_of,
    write,
)
from kafal_pipeline.federation.between_rounds.client_states import from_record, to_record
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.models.state import Arrays, to_state

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of the files; others are not gone on from."""

KEPT = 2
"""Rounds that can be gone back to: the last, and the one before in case the last is damaged."""


@dataclass(frozen=True)
class Snapshot:
    """A file's content as long as it is not on disk: references to arrays, which never change."""

    round: int
    arrays: Arrays
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one cycle of one run.

    Parameters
    ----------
    folder
        Where they lie, and nothing else.
    owner
        What the results depend on, such as a digest of configuration, data and code: a checkpoint of another owner is
        not gone on from.
    every
        Seconds that lie between two checkpoints, at least: rounds that end sooner after one are not written down.
    """

    def __init__(self, folder: Path, owner: str, every: float = 0.0) -> None:
        self.folder, self.owner, self.every = folder, f"{FORMAT} {owner}", every
        self._last = time.monotonic()
        self._changed: set[int] = set()  # clients that trained since the last checkpoint
        self._at: dict[str, dict[int, int]] = {kind: {} for kind in NUMBERED}
        self._indices: dict[int, dict[str, dict[int, int]]] = {}  # of each round that can be gone back to
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, state: CycleState) -> None:
        """Begin to write what `state` changed since the last time, once that is on disk; nothing if that was just now.

        Parameters
        ----------
        state
            May go on to the next round at once.

        Raises
        ------
        CannotWrite
            If there was no room for the round before, or writing there is not allowed.
        """
        for row in reversed(state.rows):
            if row["round"] != state.round - 1:
                break
            self._changed.add(int(row["client"]))
        if time.monotonic() - self._last < self.every:
            return
        self.wait()
        self._last = time.monotonic()
        snapshot = self._snapshot(state, sorted(self._changed))
        self._changed.clear()
        self._thread = threading.Thread(target=self._write, args=[snapshot], name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until what was begun is on disk.

        Raises
        ------
        CannotWrite
            If there is no room for it, or writing there is not allowed.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def load(self, state: CycleState) -> None:
        """Bring `state`, which stands before the first round, to the last round that is whole on disk, if any."""
        for _, path in sorted(self._files().items(), reverse=True):
            try:
                meta = meta_of(path)
                if (meta["owner"], meta["cycle"]) == (self.owner, state.cycle):
                    self._restore(state, meta)
                    self._take_over(meta)
                    logger.info("cycle %d: training resumes after round %d", state.cycle, state.round)
                    return
            except Damaged as problem:
                logger.warning("%s", problem)
            path.unlink(missing_ok=True)  # damaged, or another run's

    def _snapshot(self, state: CycleState, clients: Collection[int]) -> Snapshot:
        parts: dict[str, Arrays] = {"global": _arrays(state.global_state), "server": _arrays(state.server)}
        for client in clients:
            parts[f"client/{client}"] = to_record(state.clients[client])
            self._at["client"][client] = state.round
            if client in state.local_states:
                parts[f"local/{client}"] = _arrays(state.local_states[client])
                self._at["local"][client] = state.round
        for client, watched in state.watched.items():
            if self._at["watched"].get(client) is None or client in clients:
                parts[f"watched/{client}"] = watched
                self._at["watched"][client] = state.round
        for round_ in state.broadcasts:
            if round_ not in self._at["broadcast"]:
                parts[f"broadcast/{round_}"] = _arrays(state.broadcasts[round_])
                self._at["broadcast"][round_] = state.round
        self._at["broadcast"] = {r: at for r, at in self._at["broadcast"].items() if r in state.broadcasts}
        columns = list(state.rows[0]) if state.rows else []
        parts["rows"] = {name: np.array([row[name] for row in state.rows]) for name in columns}
        parts["downloaded"] = {
            "client": np.array(list(state.downloaded), dtype=np.int64),
            "round": np.array(list(state.downloaded.values()), dtype=np.int64),
        }
        meta = {
            "owner": self.owner,
            "cycle": state.cycle,
            "round": state.round,
            "seconds": state.seconds,
            "columns": columns,  # a file's arrays have no order
            "at": {kind: dict(at) for kind, at in self._at.items()},
        }
        arrays = {f"{part}/{name}": array for part, of in parts.items() for name, array in of.items()}
        return Snapshot(state.round, arrays, meta)

    def _write(self, snapshot: Snapshot) -> None:
        """Write a file, and keep an error for the thread that trains."""
        temporary = self.folder / f".{snapshot.round:05d}.tmp"
        try:
            with writing(self.folder):
                write(self.folder, temporary, snapshot.round, snapshot.arrays, snapshot.meta)
            self._indices[snapshot.round] = snapshot.meta["at"]
            self._forget()
        except Exception as error:  # noqa: BLE001 - raised by `wait`
            self._error = error
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _restore(self, state: CycleState, meta: dict[str, Any]) -> None:
        """Put a checkpoint into `state`, a file at a time; all of them are checked before anything is changed."""
        files, at = self._files(), index_of(meta)
        needed = sorted({place for places in at.values() for place in places.values()} | {meta["round"]})
        for round_ in needed:
            if round_ not in files:
                raise Damaged(f"{self.folder}: the checkpoint's file of round {round_} is missing.")
            check(files[round_])
        setters: dict[str, Callable[[int, Arrays], None]] = {
            "client": lambda client, arrays: state.clients.__setitem__(client, from_record(arrays)),
            "local": lambda client, arrays: state.local_states.__setitem__(client, to_state(arrays)),
            "watched": state.watched.__setitem__,
            "broadcast": lambda round_, arrays: state.broadcasts.__setitem__(round_, to_state(arrays)),
        }
        for round_ in needed:
            parts = parts_of(arrays_of(files[round_]))
            for kind, number in [(k, n) for k, places in at.items() for n, place in places.items() if place == round_]:
                setters[kind](number, parts.get(f"{kind}/{number}", {}))
        own = parts  # of the last file, which is the checkpoint's own
        state.round, state.seconds = meta["round"], meta["seconds"]
        state.global_state, state.server = to_state(own["global"]), to_state(own.get("server", {}))
        places = own["downloaded"]
        state.downloaded = dict(zip(places["client"].tolist(), places["round"].tolist(), strict=True))
        columns = {name: own["rows"][name].tolist() for name in meta["columns"]}
        state.rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _take_over(self, meta: dict[str, Any]) -> None:
        """Go on after a checkpoint, and keep the one before it, if that is legible."""
        self._at = index_of(meta)
        for round_, path in sorted(self._files().items()):
            if round_ <= meta["round"]:
                with contextlib.suppress(Damaged):
                    self._indices[round_] = index_of(meta_of(path))
        self._forget()

    def _forget(self) -> None:
        """Remove files that none of the last rounds refers to."""
        self._indices = {round_: self._indices[round_] for round_ in sorted(self._indices)[-KEPT:]}
        needed = {at for index in self._indices.values() for places in index.values() for at in places.values()}
        needed |= set(self._indices)
        for round_, path in self._files().items():
            if round_ not in needed and round_ < max(self._indices):
                path.unlink(missing_ok=True)

    def _files(self) -> dict[int, Path]:
        return files_in(self.folder)


def _arrays(state: Mapping[str, Tensor]) -> Arrays:
    """Return a state's arrays, which share its memory."""
    return {name: tensor.numpy() for name, tensor in state.items()}

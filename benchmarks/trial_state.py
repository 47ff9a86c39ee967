"""Everything a trial depends on between two rounds, in one file that is there as a whole or not at all."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import cifar_parts
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data.pools import COLUMNS
from kafal_pipeline.federation.cycle import ClientState, CycleState
from kafal_pipeline.models.state import Arrays, to_arrays, to_state

META = "meta"
CLIENT_ARRAYS = ("momentum", "kept", "batch_norm")


@dataclass
class TrialState:
    """Where a trial stands.

    `pool` is the table of labelled samples, `curve` the finished cycles' measures, `memory` what queries keep by
    client, `queried` and `queried_bytes` what the last query cost, `seconds` those of training in the cycle of
    `training`, which is None before the first round of a cycle.
    """

    pool: pd.DataFrame
    curve: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[int, Arrays] = field(default_factory=dict)
    queried: float = 0.0
    queried_bytes: int = 0
    seconds: float = 0.0
    training: CycleState | None = None


def save(path: Path, values: dict[str, Any], state: TrialState) -> None:
    """Write the state of a trial with the configuration `values`."""
    training = state.training
    assert training is not None
    arrays: dict[str, np.ndarray] = {f"pool/{name}": state.pool[name].to_numpy() for name in COLUMNS}
    parts: dict[str, Arrays] = {"global": to_arrays(training.global_state), "server": to_arrays(training.server)}
    parts |= {f"local/{client}": to_arrays(model) for client, model in training.local_states.items()}
    parts |= {f"broadcasts/{round_}": to_arrays(model) for round_, model in training.broadcasts.items()}
    parts |= {f"watched/{client}": of for client, of in training.watched.items()}
    parts |= {f"memory/{client}": of for client, of in state.memory.items()}
    for client, kept in training.clients.items():
        parts |= {f"clients/{client}/{name}": getattr(kept, name) or {} for name in CLIENT_ARRAYS}
    arrays |= {f"{part}/{name}": array for part, of in parts.items() for name, array in of.items()}
    meta = {
        "values": values,
        "curve": state.curve,
        "queried": state.queried,
        "queried_bytes": state.queried_bytes,
        "seconds": state.seconds,
        "cycle": training.cycle,
        "round": training.round,
        "downloaded": list(training.downloaded.items()),
        "rows": training.rows,
        "parts": list(parts),
        "clients": [
            {"client": client, "epochs": kept.epochs, "steps": kept.steps, "momentum": kept.momentum is not None}
            for client, kept in training.clients.items()
        ],
    }
    arrays[META] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    cifar_parts.save(path, arrays)


def load(path: Path, values: dict[str, Any]) -> TrialState:
    """Return the state of the trial with these `values`; UserError if the file is another trial's, or none of these."""
    try:
        return _read(path, values)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read as a trial's state ({type(error).__name__}: {error}): it may be damaged, or of "
            "another version of this program. Remove it, or give another --out."
        ) from None


def _read(path: Path, values: dict[str, Any]) -> TrialState:
    with np.load(path, allow_pickle=False) as archive:
        meta = json.loads(archive[META].tobytes())
        if meta["values"] != values:
            raise UserError(f"{path} is of a trial with other values; remove it, or give another --out.")
        arrays = {name: archive[name] for name in archive.files if name != META}
    parts: dict[str, Arrays] = {part: {} for part in meta["parts"]}
    for name, array in arrays.items():
        part, _, key = name.rpartition("/")
        parts.setdefault(part, {})[key] = array
    training = CycleState(
        meta["cycle"],
        meta["round"],
        to_state(parts["global"]),
        clients=dict(_clients(meta["clients"], parts)),
        server=to_state(parts["server"]),
        local_states={client: to_state(model) for client, model in _numbered(parts, "local")},
        downloaded=dict(meta["downloaded"]),
        broadcasts={round_: to_state(model) for round_, model in _numbered(parts, "broadcasts")},
        watched=dict(_numbered(parts, "watched")),
        rows=meta["rows"],
    )
    pool = pd.DataFrame({name: parts["pool"][name] for name in COLUMNS})
    queried = meta["queried"], meta["queried_bytes"]
    return TrialState(pool, meta["curve"], dict(_numbered(parts, "memory")), *queried, meta["seconds"], training)


def _numbered(parts: dict[str, Arrays], kind: str) -> Iterator[tuple[int, Arrays]]:
    for part, arrays in parts.items():
        if part.startswith(f"{kind}/"):
            yield int(part.removeprefix(f"{kind}/")), arrays


def _clients(rows: list[dict[str, Any]], parts: dict[str, Arrays]) -> Iterator[tuple[int, ClientState]]:
    for row in rows:
        client = row["client"]
        momentum, kept, batch_norm = (parts[f"clients/{client}/{name}"] for name in CLIENT_ARRAYS)
        own = momentum if row["momentum"] else None
        yield client, ClientState(own, row["epochs"], row["steps"], kept, batch_norm)

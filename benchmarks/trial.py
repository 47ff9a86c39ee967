"""A whole trial without Kedro that is saved after every round, and resumes from there."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import cifar_parts
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData, initial_pool
from kafal_pipeline.data.pools import COLUMNS
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.site import Sites
from kafal_pipeline.federation.trial import Queried, Trial
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.state import Arrays, State, to_arrays, to_state
from protocol import plain

META = "meta"


class OutOfTime(Exception):
    """The budget does not reach for another round."""


@dataclass
class TrialState:
    """What a trial has when a cycle begins to train.

    Attributes
    ----------
    pool
        The table of samples, labelled for this cycle.
    cycle
        The cycle.
    model, queried, memory
        The model of the cycle before, what the query took, and what queries keep by client.
    curve
        The measures of the cycles before.
    """

    pool: pd.DataFrame
    cycle: int = 0
    model: State | None = None
    queried: Queried | None = None
    memory: dict[int, Arrays] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)


class SavedTrial:
    """A trial that can stop after any round.

    Parameters
    ----------
    config
        Its configuration.
    data, split
        The images, and each client's training indices.
    out
        Folder of the state that a restart resumes from: `state.npz` of the cycle, `rounds` of its rounds.
    deadline
        When to stop, on `time.monotonic`'s clock.
    """

    def __init__(self, config: Config, data: ImageData, split: list[np.ndarray], out: Path, deadline: float) -> None:
        self.config, self.data, self.out, self.deadline = config, data, out, deadline
        self.path = out / "state.npz"
        if self.path.is_file():
            self.state = load(self.path, plain(config))
        else:
            self.state = TrialState(initial_pool(split, data.train_labels, config.budget, config.cycles, config.seed))
            save(self.path, plain(config), self.state)

    def run(self, workers: Workers) -> bool:
        """Do what is left; return whether that reached the end."""
        state = self.state
        sites = Sites(memory=state.memory)
        clients = Simulation(self.config, workers, state.pool, store=self._store, sites=sites)
        steps = Trial(self.config, self.data, clients).run(state.cycle, state.model, state.queried, self._on_round)
        try:
            for step in steps:
                if step.name == "train":
                    trained: CycleState = step.result
                elif step.name == "evaluate":
                    state.curve.append(step.result | measured(trained, self.config))
                    labels, accuracy = step.result["labels"], step.result["accuracy"]
                    print(f"cycle {step.cycle}: {labels} labels, accuracy {accuracy:.4f}", flush=True)
                elif step.name == "annotate":
                    state.cycle, state.model, state.queried = step.cycle, trained.global_state, step.result
                    state.pool, state.memory = pd.DataFrame(clients.pool), clients.sites.memory
                    save(self.path, plain(self.config), state)
                    shutil.rmtree(self.out / "rounds", ignore_errors=True)
        except OutOfTime:
            return False
        return True

    def _store(self, cycle: int | None) -> Store:
        if cycle is None:
            return Store(self.out)
        self._last = time.monotonic()
        owner = hashlib.sha256(json.dumps([plain(self.config), cycle]).encode())
        owner.update(self.state.pool.to_csv(index=False).encode())
        return Store(self.out / "rounds", owner.hexdigest())

    def _on_round(self, training: CycleState) -> None:
        now = time.monotonic()
        took, self._last = now - self._last, now
        print(f"cycle {training.cycle}, round {training.round}: {took:.2f} s", flush=True)
        if now + 1.5 * took > self.deadline:
            raise OutOfTime


def measured(trained: CycleState, config: Config) -> dict[str, Any]:
    """Return how much a cycle has trained."""
    samples = sum(samples_of(row["steps"], row["labels"], config) for row in trained.rows)
    steps = sum(int(row["steps"]) for row in trained.rows)
    return {"steps": steps, "samples": samples, "samples_per_second": samples / trained.seconds}


def samples_of(steps: float, labels: float, config: Config) -> int:
    """Training samples, labelled and unlabelled, of one client's round."""
    training = config.training
    return int(steps * training.batch_size + training.local_epochs * labels)


def save(path: Path, values: dict[str, Any], state: TrialState) -> None:
    """Write the state of a trial with the configuration `values`."""
    arrays: dict[str, np.ndarray] = {f"pool/{name}": state.pool[name].to_numpy() for name in COLUMNS}
    arrays |= {f"model/{name}": array for name, array in to_arrays(state.model or {}).items()}
    arrays |= {f"memory/{client}/{name}": a for client, of in state.memory.items() for name, a in of.items()}
    queried = None if state.queried is None else asdict(state.queried)
    meta = {"values": values, "cycle": state.cycle, "curve": state.curve, "queried": queried}
    arrays[META] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    cifar_parts.save(path, arrays)


def load(path: Path, values: dict[str, Any]) -> TrialState:
    """Return the state of the trial with these `values`; UserError if the file is another trial's, or none of these."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            meta = json.loads(archive[META].tobytes())
            if meta["values"] != values:
                raise UserError(f"{path} is of a trial with other values; remove it, or give another --out.")
            arrays = {name: archive[name] for name in archive.files if name != META}
        pool = pd.DataFrame({name: arrays[f"pool/{name}"] for name in COLUMNS})
        model, memory = {}, dict[int, Arrays]()
        for key, array in arrays.items():
            kind, _, name = key.partition("/")
            if kind == "model":
                model[name] = array
            elif kind == "memory":
                client, _, name = name.partition("/")
                memory.setdefault(int(client), {})[name] = array
        queried = None if meta["queried"] is None else Queried(**meta["queried"])
        return TrialState(pool, meta["cycle"], to_state(model) or None, queried, memory, meta["curve"])
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read as a trial's state ({type(error).__name__}: {error}): it may be damaged, or of "
            "another version of this program. Remove it, or give another --out."
        ) from None

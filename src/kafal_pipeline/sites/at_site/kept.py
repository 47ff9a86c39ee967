"""Files in which a site keeps one trial: labels, choices, and what training leaves from round to round.

A site's answer is a function of the request and of what it keeps from *before* it, and what it kept before the last
round stays until the next one is done. So a server that resumes may ask again, and gets the same bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.data.pools import UNLABELLED, ClientPool
from kafal_pipeline.federation.between_rounds.client_states import ClientState, from_record, to_record
from kafal_pipeline.federation.between_rounds.store import Store, key_of
from kafal_pipeline.federation.site import Site
from kafal_pipeline.models.state import Arrays

ROUNDS = 2
"""Rounds whose outcome stays: the last one that the site trained in, and what that began with."""

STATE, MODEL, BROADCAST, WATCHED = "state", "model", "broadcast", "watched"
OF_ROUND = (STATE, MODEL, BROADCAST, WATCHED)
MEMORY, CHOICE, TRAINED, PEOPLE = "memory", "choice", "trained", "people"

CYCLES = 3
"""Cycles whose pools by people stay: a server that resumes asks for the last one, and queries with the one before."""


class Kept:
    """The state of a site in one trial.

    Parameters
    ----------
    folder
        Of the trial at the site.
    owner
        What the state depends on: a state of another owner is not taken up.
    client
        The site's number.
    size
        Number of its training images.
    """

    def __init__(self, folder: Path, owner: str, client: int, size: int) -> None:
        self.client = client
        self.store = Store(folder, owner)
        resumed: dict[str, Any] = self.store.resumed or {}
        self._commits: int = resumed.get("commits", 0)
        self._cycle: int = resumed.get("cycle", -1)
        self._rounds: list[int] = resumed.get("rounds", [])
        if "pool" not in self.store:
            nobody = np.full(size, UNLABELLED, dtype=np.int64)
            self.store["pool"] = {"label": nobody, "since": nobody.copy()}

    def save(self) -> None:
        """Make all durable, before an answer leaves."""
        self._commits += 1
        self.store.commit(self._commits, {"commits": self._commits, "cycle": self._cycle, "rounds": self._rounds})
        self.store.wait()

    # Labels

    @property
    def _pool(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The label of each sample, and the cycle that it was labelled in."""
        pool = self.store["pool"]
        return pool["label"].astype(np.int64), pool["since"].astype(np.int64)

    def annotated(self, cycle: int) -> bool:
        """Tell whether a cycle's labels are there."""
        return key_of(PEOPLE, cycle) in self.store or bool((self._pool[1] == cycle).any())

    def annotate(self, cycle: int, samples: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        """Give samples their labels, in the place of what the cycle had labelled before."""
        label, since = (column.copy() for column in self._pool)
        label[since >= cycle], since[since >= cycle] = UNLABELLED, UNLABELLED
        label[samples], since[samples] = labels, cycle
        self.store["pool"] = {"label": label, "since": since}

    def labels_of(self, cycle: int) -> NDArray[np.int64]:
        """Return the labels that a cycle got, ``(n,)``."""
        people = self.people(cycle)
        label, since = self._pool if people is None else (people[1]["label"], people[1]["since"])
        return label[since == cycle]

    def people(self, cycle: int) -> tuple[int, Arrays] | None:
        """Return the last pool until a cycle whose labels people gave, and which cycle it is of; None if there is none.

        Its columns are int64: ``sample``, ``label``, ``since``, ``asked`` (the cycles it was labelled and asked for
        in), ``(n,)`` each, and ``tests``, the labels of the test images.
        """
        cycles = [known for known in self._cycles_of_people() if known <= cycle]
        return (max(cycles), self.store[key_of(PEOPLE, max(cycles))]) if cycles else None

    def keep_people(self, cycle: int, pool: Arrays) -> None:
        """Keep the pool of a cycle whose labels people gave, in the place of what is there of it and later ones."""
        for known in self._cycles_of_people():
            if known >= cycle or known <= cycle - CYCLES:
                del self.store[key_of(PEOPLE, known)]
        self.store[key_of(PEOPLE, cycle)] = pool

    def _cycles_of_people(self) -> list[int]:
        return [int(key.rpartition("_")[2]) for key in self.store if key.startswith(f"{PEOPLE}_")]

    def pool(self, cycle: int) -> ClientPool:
        """Return the pool as it was in a cycle, for which nothing may have been labelled.

        Raises NotAllowed if there is no label at all yet.
        """
        if (people := self.people(cycle)) is not None:
            sample, label, since, asked = (people[1][name] for name in ("sample", "label", "since", "asked"))
            known = since != UNLABELLED
            waits = ~known & (asked != UNLABELLED)
            return ClientPool(sample[known], label[known], sample[~known], sample[since != 0], sample[waits])
        if not self.annotated(0):
            raise NotAllowed("there are no labels yet: `annotate` of cycle 0 comes first.")
        label, since = self._pool
        known = (since != UNLABELLED) & (since <= cycle)
        samples = np.arange(len(label))
        return ClientPool(samples[known], label[known], samples[~known], samples[since != 0])

    # Rounds

    def before(self, cycle: int, round_: int, *, with_model: bool) -> Site:
        """Return the site as it begins a round; what it has trained in that round or later is forgotten.

        Raises NotAllowed if the site no longer knows how it was then.
        """
        if cycle < self._cycle:
            raise NotAllowed(f"cycle {cycle} is over at this site, which is in cycle {self._cycle}.")
        if cycle > self._cycle:
            self._forget(self._rounds)
            self._cycle, self._rounds = cycle, []
        later = [known for known in self._rounds if known >= round_]
        if later and len(later) == len(self._rounds) == ROUNDS:
            raise NotAllowed(
                f"round {round_} of cycle {cycle} is over at this site, which trained in round {later[-1]}."
            )
        pool = self.pool(cycle)
        earlier = [known for known in self._rounds if known < round_]
        if not earlier:
            return Site(self.client, pool)
        last = earlier[-1]
        state = from_record(self.store[key_of(STATE, last)])
        model = self.store[key_of(MODEL, last)] if with_model else None
        return Site(self.client, pool, state, model, watched=self.store.get(key_of(WATCHED, last)))

    def after(self, round_: int, site: Site, broadcast: Arrays, *, momentum: bool) -> None:
        """Keep what a round has left."""
        self._forget([known for known in self._rounds if known >= round_])
        earlier = [known for known in self._rounds if known < round_]
        self._forget(earlier[:-1])
        self._rounds = [*earlier[-1:], round_]
        state = site.state
        if not momentum:
            state = ClientState(None, state.epochs, 0, state.kept, state.batch_norm)
        self.store[key_of(STATE, round_)] = to_record(state)
        self.store[key_of(MODEL, round_)] = site.model or {}
        self.store[key_of(BROADCAST, round_)] = broadcast
        if site.watched is not None:
            self.store[key_of(WATCHED, round_)] = site.watched

    def _forget(self, rounds: list[int]) -> None:
        for key in (key_of(kind, round_) for kind in OF_ROUND for round_ in rounds):
            if key in self.store:
                del self.store[key]

    # Queries

    def choosing(self, cycle: int) -> Site:
        """Return the site as it chooses for a cycle, with what it has from the cycle before.

        Raises NotAllowed if it has gone on to train in that cycle.
        """
        if self._cycle >= cycle:
            raise NotAllowed(
                f"the query of cycle {cycle} is over at this site, which has trained in cycle {self._cycle}."
            )
        site = Site(self.client, self.pool(cycle - 1), memory=self.store.get(key_of(MEMORY, cycle - 1), {}))
        if self._cycle != cycle - 1 or not self._rounds:
            return site
        last = self._rounds[-1]
        return Site(
            self.client,
            site.pool,
            model=self.store[key_of(MODEL, last)],
            downloaded=self.store[key_of(BROADCAST, last)],
            watched=self.store.get(key_of(WATCHED, last)),
            memory=site.memory,
        )

    def keep_trained(self, trained: dict[str, Arrays]) -> None:
        """Keep the models that a query's first phase has trained, for its second."""
        for key in [key for key in self.store if key.startswith(f"{TRAINED}_")]:
            del self.store[key]
        for kind, arrays in trained.items():
            self.store[f"{TRAINED}_{kind}"] = arrays

    def trained(self) -> dict[str, Arrays]:
        """Return those models by kind."""
        keys = [key for key in self.store if key.startswith(f"{TRAINED}_")]
        return {key.removeprefix(f"{TRAINED}_"): self.store[key] for key in keys}

    def choose(self, cycle: int, samples: NDArray[np.int64], scores: NDArray[np.float64], memory: Arrays) -> None:
        """Keep what was chosen for a cycle, and what the query keeps from it."""
        self.store[key_of(CHOICE, cycle)] = {"samples": samples, "scores": scores}
        self.store[key_of(MEMORY, cycle)] = memory
        if (old := key_of(MEMORY, cycle - 2)) in self.store:
            del self.store[old]

    def choice(self, cycle: int) -> NDArray[np.int64]:
        """Return the samples that were chosen for a cycle: none where the site was missing when it was to choose."""
        if (key := key_of(CHOICE, cycle)) not in self.store:
            return np.empty(0, dtype=np.int64)
        return self.store[key]["samples"].astype(np.int64)

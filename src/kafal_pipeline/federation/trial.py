"""A whole trial on one page: for each cycle query, annotate, train and evaluate.

The server sees what clients answer, numbers of labels and the global model; images, pools and what clients keep are the
sites' own. `kafal_pipeline.federation.simulation.Simulation` has all sites in processes of this machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData
from kafal_pipeline.evaluation.measures import entropy
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.federation.clients import Clients
from kafal_pipeline.federation.cycle import OnRound, train_cycle
from kafal_pipeline.models.state import State, initial_state, size_in_bytes
from kafal_pipeline.query.base import summarises
from kafal_pipeline.query.factory import make_query


@dataclass(frozen=True)
class Queried:
    """What the query of a cycle took: seconds, and bytes that a real federation would have sent.

    `bytes_down` counts the aggregated models that queries asked for (a client has its own model and the one it last
    downloaded already) and the summaries of all clients, to every client; `bytes_up` each client's summary.
    """

    seconds: float
    bytes_down: int
    bytes_up: int = 0


@dataclass(frozen=True)
class Step:
    """One step of a trial that has been done: its name, its cycle and what it returned."""

    name: str
    cycle: int
    result: Any


@dataclass(frozen=True)
class Trial:
    """The four steps of a cycle, and their order; of `data` it reads the images' shape and the classes."""

    config: Config
    data: ImageData
    clients: Clients

    def run(
        self,
        first: int = 0,
        model: State | None = None,
        queried: Queried | None = None,
        on_round: OnRound | None = None,
    ) -> Iterator[Step]:
        """Do the trial, and yield each step that is done, so that whoever asks can save what it left.

        It begins, or resumes, with the cycle `first`, whose labels the clients have. `model` is that of the cycle
        before, `queried` what the query for this one took; both are None at the beginning.
        """
        for cycle in range(first, self.config.cycles):
            if cycle > first:
                assert model is not None  # the cycle before left one
                queried = self.query(cycle, model)
                yield Step("query", cycle, queried)
                self.clients.annotate(cycle)
                yield Step("annotate", cycle, queried)
            trained = self.train(cycle, model, on_round)
            yield Step("train", cycle, trained)
            yield Step("evaluate", cycle, self.evaluate(trained, queried))
            model = trained.global_state

    def query(self, cycle: int, model: State) -> Queried:
        """Let every client choose its budget for `cycle`, knowing all clients' summaries if the query has some."""
        begin = time.perf_counter()
        two_phases = summarises(make_query(self.config.query))
        summaries = self.clients.summarise(cycle, model) if two_phases else {}
        asked = self.clients.select(cycle, model, summaries)
        up = sum(array.nbytes for summary in summaries.values() for array in summary.values())
        models = sum("global" in kinds for kinds in asked.values()) * size_in_bytes(model)
        return Queried(time.perf_counter() - begin, models + up * len(asked), up)

    def train(self, cycle: int, model: State | None = None, on_round: OnRound | None = None) -> CycleState:
        """Train the global model for a cycle, from fresh weights or the cycle before's."""
        if model is None or self.config.federation.between_cycles == "fresh":
            shape = {"in_channels": self.data.channels, "num_classes": self.data.num_classes}
            size = self.data.train_images.shape[1:3]
            model = initial_state(self.config.model, **shape, seed=self.config.seed, cycle=cycle, image_size=size)
        return train_cycle(self.config, self.clients, model, cycle, on_round)

    def evaluate(self, trained: CycleState, queried: Queried | None = None) -> dict[str, Any]:
        """Have the global model measured on the test images, and say what its cycle asked for and cost."""
        begin, bought = time.perf_counter(), self.clients.bought(trained.cycle)
        measures = self.clients.evaluate(trained.global_state)
        sent = sum(row["bytes_down"] + row["bytes_up"] for row in trained.rows)
        return {
            "cycle": trained.cycle,
            "labels": bought.labelled,
            "labelled_fraction": bought.labelled / bought.samples,
            **measures,
            "classes": list(self.data.classes),
            "queried_histogram": bought.asked.tolist(),
            "queried_entropy": None if queried is None else entropy(bought.asked),
            "train_seconds": trained.seconds,
            "query_seconds": None if queried is None else queried.seconds,
            "evaluate_seconds": time.perf_counter() - begin,
            "bytes_sent": int(sent + (queried.bytes_down + queried.bytes_up if queried else 0)),
            "skipped_client_rounds": sum(bool(row.get("failed")) for row in trained.rows),
        }

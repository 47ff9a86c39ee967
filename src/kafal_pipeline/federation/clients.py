"""Protocol of a federation's clients: all that the server asks of them, wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from kafal_pipeline.data.pools import Labels
from kafal_pipeline.evaluation.model_measures import ModelMeasures
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState, Row
from kafal_pipeline.models.state import Arrays, State
from kafal_pipeline.query.pool import QueryModel
from kafal_pipeline.update.base import ClientUpdate


@dataclass(frozen=True)
class Reply:
    """What a client answers after a round.

    Attributes
    ----------
    client
        Its number.
    row
        Of the table ``rounds``.
    update
        Returns what it sends, read from where it lies; None where its training failed.
    problem
        What of it is not finite, as a part of a sentence.
    missing
        Whether it has not answered at all; then `problem` says why.
    """

    client: int
    row: Row
    update: Callable[[], ClientUpdate] | None
    problem: str | None = None
    missing: bool = False


class Clients(Protocol):
    """All that a trial asks of its clients, wherever they are."""

    @property
    def labels(self) -> Mapping[int, int]:
        """The number of labelled samples of each client."""

    def training(self, cycle: int, model: State) -> AbstractContextManager[CycleState]:
        """Begin a cycle's rounds with a model, or resume after the last one that was saved; at the end all is saved."""

    def train(self, state: CycleState, clients: Sequence[int]) -> Iterator[Reply]:
        """Let clients train for a round, and yield their replies in any order."""

    def save(self, state: CycleState) -> None:
        """Save the state after a round, at the server and at the sites."""

    def summarise(self, cycle: int, model: State) -> Mapping[int, Arrays]:
        """Return each client's summary, for queries that need those of all before clients choose."""

    def select(self, cycle: int, model: State, summaries: Mapping[int, Arrays]) -> Mapping[int, frozenset[QueryModel]]:
        """Let each client choose its budget for a cycle; return the models that its query asked for."""

    def annotate(self, cycle: int) -> None:
        """Get the labels of what was chosen for a cycle."""

    def bought(self, cycle: int) -> Labels:
        """Return how many labels there are, and which classes those of a cycle have."""

    def evaluate(self, model: State) -> ModelMeasures:
        """Measure a model on the clients' test images."""

"""The clients of a trial at sites of their own, as `kafal_pipeline.federation.clients.Clients` describes them."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.config import Config
from kafal_pipeline.data.pools import Labels
from kafal_pipeline.evaluation.model_measures import BINS, ModelMeasures
from kafal_pipeline.evaluation.parts import Part, joined
from kafal_pipeline.federation.between_rounds import cycle_state
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.federation.between_rounds.lazy import Deferred
from kafal_pipeline.federation.between_rounds.store import Store, key_of
from kafal_pipeline.federation.clients import Reply
from kafal_pipeline.federation.simulation import memory_limit
from kafal_pipeline.federation.site import Sites
from kafal_pipeline.models.state import Arrays, State, to_arrays, to_state
from kafal_pipeline.query.pool import QueryModel
from kafal_pipeline.sites.at_server.answers import array_of, count_of, problem_with, problem_with_training
from kafal_pipeline.sites.at_server.members import Members
from kafal_pipeline.sites.at_server.rows import row_of
from kafal_pipeline.sites.at_server.waiting import those_done
from kafal_pipeline.sites.at_site.service import sent as sent_of
from kafal_pipeline.sites.packets import Carrier, Missing, Packet, Value
from kafal_pipeline.update.base import ClientUpdate

logger = logging.getLogger(__name__)


class SitesAsClients:
    """The sites of a federation.

    Parameters
    ----------
    config
        The trial's configuration.
    carrier
        Carries messages.
    members
        The sites that take part.
    run
        The trial's name, by which sites keep it apart from others.
    cycle
        The cycle that the trial begins or resumes with.
    store
        Makes the store for what the server keeps of the cycle that trains.

    Attributes
    ----------
    labels
        The number of labelled samples of each site, by number.
    queried
        How many samples each has chosen in the last query.

    Raises
    ------
    UserError
        If a site cannot take part.
    """

    def __init__(
        self,
        config: Config,
        carrier: Carrier,
        members: Members,
        run: str,
        *,
        cycle: int = 0,
        store: Callable[[int], Store] = lambda _: Store(),
    ) -> None:
        self.config, self.members, self.run = config, members, run
        self._carrier, self._new_store = carrier, store
        self._asked: dict[int, np.ndarray] = {}
        self._summary_models: dict[int, frozenset[QueryModel]] = {}
        self._unsure: set[int] = set()
        self.labels: dict[int, int] = {}
        self.queried: dict[int, int] = {}
        common: dict[str, Value] = {
            "config": sent_of(config),
            "classes": list(members.classes),
            "mean": members.mean,
            "std": members.std,
        }
        requests = {client: self._packet(None, client=client, **common) for client in range(len(members.names))}
        for client, answer in self._all("start", requests, "start").items():
            if answer.values["samples"] != members.sizes[client]:
                raise UserError(f"site {members.names[client]}: its images have changed since it joined; start again.")
        self.annotate(cycle)

    # Messages

    def _packet(self, arrays: Mapping[str, Arrays] | None = None, /, **values: Value) -> Packet:
        return Packet({"run": self.run, **values}, arrays or {})

    def _ask(self, kind: str, requests: Mapping[int, Packet], place: str) -> Iterator[tuple[int, Packet | Missing]]:
        """Yield sites' numbers and answers; one that cannot be used is missing."""
        names = self.members.names
        numbers = {names[client]: client for client in requests}
        for name, answer in self._carrier.ask(
            kind, {names[client]: found for client, found in requests.items()}, place
        ):
            problem = problem_with(kind, answer)
            yield numbers[name], answer if problem is None else Missing(problem)

    def _all(self, kind: str, requests: Mapping[int, Packet], place: str) -> dict[int, Packet]:
        """Return the answers of the sites, by number in order; raises UserError if more are missing than may be."""
        answers: dict[int, Packet] = {}
        missing: dict[str, str] = {}
        for client, answer in self._ask(kind, requests, place):
            if isinstance(answer, Missing):
                missing[self.members.names[client]] = answer.why
            else:
                answers[client] = answer
        told = "; ".join(f"site {name}: {why}" for name, why in sorted(missing.items()))
        allowed = self.config.federation.missing_sites
        if len(missing) > allowed or not answers:
            raise UserError(f"{place}: {told}. Sites that may be missing: {allowed} (federation.missing_sites).")
        if missing:
            logger.warning("%s: goes on without %d of %d sites (%s)", place, len(missing), len(requests), told)
        return dict(sorted(answers.items()))

    def _of(self, client: int) -> tuple[str, int]:
        return self.members.names[client], self.members.sizes[client]

    # Training

    @contextlib.contextmanager
    def training(self, cycle: int, model: State) -> Iterator[CycleState]:
        """Begin the rounds of a cycle, or resume them after the last that the server has saved."""
        self._store = self._new_store(cycle)
        state, _ = cycle_state.begin(self._store, (), model, cycle)
        try:
            yield state
        except BaseException:
            with contextlib.suppress(CannotWrite):  # what ended the training is what counts
                self._store.wait()
            raise
        self._store.wait()

    def train(self, state: CycleState, clients: Sequence[int]) -> Iterator[Reply]:
        """Let sites train for a round, and yield their replies as they come."""
        model, server = to_arrays(state.global_state), to_arrays(state.server)
        packet = self._packet({"model": model, "server": server}, cycle=state.cycle, round=state.round)
        place, shapes = f"cycle {state.cycle}, round {state.round}", None
        sent = Store(limit=memory_limit(self.config, state.global_state, len(self.members.names)))
        for client, answer in self._ask("train", dict.fromkeys(clients, packet), place):
            if isinstance(answer, Missing):
                yield Reply(
                    client,
                    row_of(self.config, state, client, self.labels[client], None),
                    None,
                    answer.why,
                    missing=True,
                )
                continue
            if client in self._unsure:
                self.labels[client] = count_of(*self._of(client), answer.values["labels"])
            problem = problem_with_training(answer, state.cycle, state.round, self.labels[client], model, shapes)
            if problem is not None:
                yield Reply(
                    client, row_of(self.config, state, client, self.labels[client], answer, failed=True), None, problem
                )
                continue
            shapes = {name: array.shape for name, array in answer.arrays.get("message", {}).items()}
            for group in ("model", "message"):
                sent[key_of(group, client)] = answer.arrays.get(group, {})
            update = partial(self._update, client, sent, answer.values)
            yield Reply(client, row_of(self.config, state, client, self.labels[client], answer), update)

    def _update(self, client: int, sent: Store, values: Mapping[str, Value]) -> ClientUpdate:
        """Return what a site has sent; its tensors are read when they are looked into."""
        model = Deferred(lambda: to_state(sent[key_of("model", client)]))
        message = Deferred(lambda: to_state(sent[key_of("message", client)]))
        travel, parameters = cast(float, values["travel"]), cast(list[str], values["parameters"])
        return ClientUpdate(model, float(self.labels[client]), travel, frozenset(parameters), message)

    def save(self, state: CycleState) -> None:
        """Save the state after a round; sites have saved theirs before they answered."""
        cycle_state.save(state, Sites(), self._store)

    # Queries and labels

    def summarise(self, cycle: int, model: State) -> dict[int, Arrays]:
        """Return each site's summary."""
        packet = self._packet({"model": to_arrays(model)}, cycle=cycle)
        answers = self._all("summary", dict.fromkeys(self.labels, packet), f"cycle {cycle}, summary")
        self._summary_models = {client: _models(answer) for client, answer in answers.items()}
        return {client: answer.arrays.get("summary", {}) for client, answer in answers.items()}

    def select(self, cycle: int, model: State, summaries: Mapping[int, Arrays]) -> dict[int, frozenset[QueryModel]]:
        """Let every site choose its budget; return the models that each has asked for."""
        said = {f"summary_{client}": arrays for client, arrays in summaries.items()}
        packet = self._packet({"model": to_arrays(model), **said}, cycle=cycle)
        answers = self._all("select", dict.fromkeys(self.labels, packet), f"cycle {cycle}, query")
        self.queried = {
            client: count_of(*self._of(client), answer.values["queried"]) for client, answer in answers.items()
        }
        before = self._summary_models if summaries else {}
        return {client: _models(answer) | before.get(client, frozenset()) for client, answer in answers.items()}

    def annotate(self, cycle: int) -> None:
        """Have the sites label what was chosen for a cycle; of cycle 0, their first samples.

        Raises `Waiting` if people at more sites than may be missing have not labelled enough.
        """
        clients = range(len(self.members.names))
        answers = self._all("annotate", dict.fromkeys(clients, self._packet(cycle=cycle)), f"cycle {cycle}, labels")
        answers = those_done(self.members.names, cycle, answers, self.config.federation.missing_sites)
        labels = {client: count_of(*self._of(client), answer.values["labelled"]) for client, answer in answers.items()}
        # One that was silent may have labelled all the same: then it says so when it trains.
        self._unsure = set(clients) - labels.keys()
        self.labels = {client: labels.get(client, self.labels.get(client, 0)) for client in clients}
        classes = (len(self.members.classes),)
        counts = [
            array_of(self.members.names[client], answer, "asked", "counts", classes)
            for client, answer in answers.items()
        ]
        self._asked = {cycle: np.sum(counts, axis=0)}

    def bought(self, cycle: int) -> Labels:
        """Return how many labels there are, and which classes those of a cycle have."""
        return Labels(self._asked[cycle], sum(self.labels.values()), sum(self.members.sizes))

    def evaluate(self, model: State) -> ModelMeasures:
        """Measure a model on the sites' test images."""
        packet, classes = self._packet({"model": to_arrays(model)}), len(self.members.classes)
        parts: dict[int, Part] = {}
        for client, answer in self._all("evaluate", dict.fromkeys(self.labels, packet), "evaluation").items():
            confusion = array_of(self.members.names[client], answer, "confusion", "counts", (classes, classes))
            gaps, auroc = (
                array_of(self.members.names[client], answer, "gaps", "sums", (BINS,)),
                cast(float, answer.values["auroc"]),
            )
            parts[client] = Part(confusion, gaps, None if math.isnan(auroc) else auroc)
        return joined(parts, self.members.names)


def _models(answer: Packet) -> frozenset[QueryModel]:
    return frozenset(cast(list[QueryModel], answer.values["models"]))

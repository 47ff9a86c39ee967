"""Does a site's part of a trial: trains, sums up, chooses, labels and measures, with the simulation's own functions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.common.randomness import Purpose, numpy_generator
from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData
from kafal_pipeline.data.pools import check_budget, cycle_budget
from kafal_pipeline.evaluation.parts import part_of
from kafal_pipeline.federation.failures import problem_of
from kafal_pipeline.federation.prediction import CHUNK
from kafal_pipeline.federation.workers.query_worker import QueryTask
from kafal_pipeline.federation.workers.tasks import Broadcast, PredictTask, TrainTask
from kafal_pipeline.federation.workers.watching import begin_watching
from kafal_pipeline.federation.workers.worker import Worker
from kafal_pipeline.models.state import Arrays
from kafal_pipeline.query.first import first_order
from kafal_pipeline.query.pool import QueryModel
from kafal_pipeline.sites.at_site.kept import Kept
from kafal_pipeline.sites.at_site.people import People
from kafal_pipeline.sites.at_site.site_file import SiteFile
from kafal_pipeline.sites.packets import Packet, Value


class Work:
    """A trial at a site."""

    def __init__(
        self, site: SiteFile, config: Config, images: ImageData, kept: Kept, people: People | None = None
    ) -> None:
        self.site, self.config, self.images, self.kept, self.people = site, config, images, kept, people
        self._worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        """Networks and images on the device, made when they are first needed."""
        if self._worker is None:
            self._worker = Worker(self.images, self.config)
        return self._worker

    def annotate(self, request: Packet) -> Packet:
        """Reveal the labels of what was chosen for a cycle, which the site's folders or its people have."""
        cycle = _whole(request, "cycle")
        if self.people is not None:
            with threads(self.site.threads):
                missing = self.people.annotate(cycle)
            if missing:
                return Packet({"labelled": self.people.labelled(cycle), "missing": missing})
        elif not self.kept.annotated(cycle):
            samples = self.kept.choice(cycle) if cycle else self._first()
            self.kept.annotate(cycle, samples, self.images.train_labels[samples])
            self.kept.save()
        asked = np.bincount(self.kept.labels_of(cycle), minlength=self.images.num_classes)
        labelled = len(self.kept.pool(cycle).labelled)
        return Packet({"labelled": labelled, "missing": 0}, {"asked": {"counts": withheld(asked, self.site.min_count)}})

    def _first(self) -> NDArray[np.int64]:
        """Choose the samples of the initial pool, as `kafal_pipeline.data.pools.initial_pool` does for this client."""
        size, budget, client = len(self.images.train_labels), self.config.budget, self.kept.client
        initial, later = cycle_budget(size, budget.initial), cycle_budget(size, budget.per_cycle)
        check_budget(client, size, initial, later, self.config.cycles)
        rng = numpy_generator(self.config.seed, Purpose.INITIAL_POOL, client=client)
        order = first_order(self.images.train_images, budget.initial_query)
        with threads(self.site.threads):
            chosen = order(np.arange(size), np.zeros(size, dtype=bool), initial, rng)
        return np.sort(chosen[:initial])

    def train(self, request: Packet) -> Packet:
        """Train for a round; what is not finite stays here, and the site is then as it was before."""
        cycle, round_ = _whole(request, "cycle"), _whole(request, "round")
        to = Broadcast(cycle, round_, request.arrays["model"], request.arrays.get("server", {}))
        client, worker = self.kept.client, self.worker
        self._settle(cycle)
        site = self.kept.before(cycle, round_, with_model=worker.update.uses_previous())
        if site.watched is None:
            watched = begin_watching(self.config, {client: site.pool}, cycle).get(client)
            site = replace(site, watched=watched)
        with threads(self.site.threads):
            result = worker.train(TrainTask(site, to))
        problem = problem_of(result)
        values: dict[str, Value] = {
            **{"cycle": cycle, "round": round_, "labels": len(site.pool.labelled), "loss": result.loss},
            **{"epochs": result.site.state.epochs, "steps": result.steps, "seconds": result.seconds},
            **{"travel": result.travel, "problem": problem or "", "parameters": [*sorted(result.parameters)]},
            "own": sum(array.nbytes for array in site.state.batch_norm.values()),
        }
        if problem is not None:
            return Packet(values)
        self.kept.after(round_, result.site, to.model, momentum=self.config.federation.client_momentum == "kept")
        self.kept.save()
        return Packet(values, {"model": result.model, "message": result.message})

    def summary(self, request: Packet) -> Packet:
        """Do the first phase of the query."""
        cycle = _whole(request, "cycle")
        task = self._query_task(cycle, request.arrays["model"], {}, {})
        with threads(self.site.threads):
            found = self.worker.summarise(task)
        self.kept.keep_trained({str(kind): arrays for kind, arrays in found.trained.items()})
        self.kept.save()
        return Packet(
            {"models": [str(kind) for kind in sorted(found.models)]}, {"summary": self._withheld(found.summary)}
        )

    def select(self, request: Packet) -> Packet:
        """Choose the cycle's budget; which images these are stays here."""
        cycle = _whole(request, "cycle")
        summaries = {
            int(name.rpartition("_")[2]): arrays
            for name, arrays in request.arrays.items()
            if name.startswith("summary_")
        }
        trained = {cast(QueryModel, kind): arrays for kind, arrays in self.kept.trained().items()} if summaries else {}
        task = self._query_task(cycle, request.arrays["model"], summaries, trained)
        with threads(self.site.threads):
            found = self.worker.select(task)
        chosen = found.selection
        assert chosen.scores is not None  # of what has been checked
        self.kept.choose(cycle, chosen.samples, np.asarray(chosen.scores), dict(chosen.memory))
        self.kept.save()
        return Packet({"models": [str(kind) for kind in sorted(found.models)], "queried": len(chosen.samples)})

    def _query_task(
        self, cycle: int, model: Arrays, summaries: dict[int, Arrays], trained: dict[QueryModel, Arrays]
    ) -> QueryTask:
        self._settle(cycle - 1)
        site = self.kept.choosing(cycle)
        budget = cycle_budget(site.pool.size, self.config.budget.per_cycle)
        budget = min(budget + self.config.annotation.reserve(budget), len(site.pool.candidates))
        return QueryTask(site, cycle, budget, model, trained, summaries)

    def _settle(self, cycle: int) -> None:
        """Take the labels that people have given so far, if the server has gone on without waiting for the others."""
        if self.people is not None:
            with threads(self.site.threads):
                self.people.settle(cycle)

    def evaluate(self, request: Packet) -> Packet:
        """Measure a model on those of the site's test images that have a label."""
        labels = self.images.test_labels if self.people is None else self.people.tests()
        state, known = request.arrays["model"], labels >= 0
        if not known.any():
            raise NotAllowed("no test image has a label here.")
        with threads(self.site.threads):
            starts = range(0, len(labels), CHUNK)
            tasks = [PredictTask(state, start, min(start + CHUNK, len(labels))) for start in starts]
            logits = np.concatenate([self.worker.predict(task) for task in tasks])
        counts = np.bincount(labels[known], minlength=self.images.num_classes)
        said = known & (counts[labels] >= self.site.min_count)  # images of rarer classes are left out altogether
        part = part_of(labels[said], logits[said])
        auroc = math.nan if part.auroc is None else part.auroc
        return Packet({"auroc": auroc}, {"confusion": {"counts": part.confusion}, "gaps": {"sums": part.gaps}})

    def _withheld(self, summary: Arrays) -> Arrays:
        """Return a summary without classes of too few labels: 0 in what has a row for each class."""
        least = self.site.min_count
        counts: Any = summary.get("label_counts")
        if least == 1 or not summary:
            return summary
        if counts is None:
            raise NotAllowed(
                f"the query's summary has no `label_counts`, so that this site cannot tell how many images it stands "
                f"for (min_count {least} in site.yml). Set min_count: 1, or use another query."
            )
        rare = (counts > 0) & (counts < least)
        return {
            name: np.where(rare.reshape(-1, *[1] * (array.ndim - 1)), np.zeros((), array.dtype), array)
            if array.ndim and len(array) == len(counts)
            else array
            for name, array in summary.items()
        }


def withheld(counts: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    """Return counts with 0 in the place of those below `least`."""
    return np.where(counts < least, 0, counts)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _whole(request: Packet, name: str) -> int:
    value = request.values[name]
    assert isinstance(value, int)  # as it is listed
    if value < 0:
        raise NotAllowed(f"found {name} {value}; allowed: from 0 on.")
    return value

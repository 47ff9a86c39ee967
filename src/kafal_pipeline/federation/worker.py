"""What one process does for the federation: train a client, answer a query, predict test images."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData
from kafal_pipeline.errors import UserError
from kafal_pipeline.federation import query_worker
from kafal_pipeline.federation.query_models import QueryModelTrainer
from kafal_pipeline.federation.query_worker import ClientModels, QueryResult, QueryTask, SummaryResult
from kafal_pipeline.federation.states import Arrays, to_arrays, to_state
from kafal_pipeline.federation.watching import Watch
from kafal_pipeline.models import build
from kafal_pipeline.query import QUERIES
from kafal_pipeline.query.base import Query, Summarises
from kafal_pipeline.randomness import Purpose, torch_generator
from kafal_pipeline.registry import create
from kafal_pipeline.training.devices import choose_device
from kafal_pipeline.training.inference import predictions
from kafal_pipeline.training.local import ClientSamples, train_locally
from kafal_pipeline.training.pixels import Pixels
from kafal_pipeline.training.precision import in_precision
from kafal_pipeline.update import UPDATES
from kafal_pipeline.update.base import Update

SMALLEST_IMAGE = 5
"""Pixels a side: smaller ones shrink to a single pixel, and batch norm has no variance in a batch of one."""


@dataclass(frozen=True)
class TrainTask:
    """Local training of one client in one round; samples are indices into the training set.

    `watched` is what the query has watched while this client trains (`kafal_pipeline.federation.watching`).
    """

    client: int
    cycle: int
    round: int
    global_state: Arrays
    momentum: Arrays | None
    epochs: int
    labelled: NDArray[np.int64]
    labels: NDArray[np.int64]
    unlabelled: NDArray[np.int64]
    watched: Arrays | None = None


@dataclass(frozen=True)
class TrainResult:
    """A trained client: its model, momentum, local epochs in this cycle, mean loss, steps and seconds."""

    client: int
    state: Arrays
    momentum: Arrays
    epochs: int
    loss: float
    steps: int
    seconds: float
    watched: Arrays | None = None


@dataclass(frozen=True)
class PredictTask:
    """Predictions of one model for test images ``start .. stop``."""

    state: Arrays
    start: int
    stop: int


class Worker:
    """The data on its device and the networks, made once a process.

    Parameters
    ----------
    data
        The images; every process maps the same store, so that they are in memory once.
    config
        The run's configuration.
    """

    def __init__(self, data: ImageData, config: Config) -> None:
        height, width = data.train_images.shape[1:3]
        if min(height, width) < SMALLEST_IMAGE:
            raise UserError(
                f"dataset: the images have {height}x{width} pixels; each side needs at least {SMALLEST_IMAGE}. "
                "Enlarge them with dataset.image_size."
            )
        self.config = config
        self.device = choose_device(config.training.device)
        mean, std = data.mean.tolist(), data.std.tolist()
        self.train_pixels = Pixels(data.train_images, mean, std, self.device)
        self.test_pixels = Pixels(data.test_images, mean, std, self.device)
        self.num_classes = data.num_classes
        self.update: Update = create("update", config.update.name, config.update.options, UPDATES)
        self.query: Query = create("query", config.query.name, config.query.options, QUERIES)
        self._new_network = partial(build, config.model.name, in_channels=data.channels, num_classes=data.num_classes)
        self._student = self._new_network().to(self.device)
        self._in_use = in_precision(self._student, config.training.precision)
        self._teacher = self._new_network().to(self.device).requires_grad_(False)

    def train(self, task: TrainTask) -> TrainResult:
        """Train one client from the global model of its round."""
        start = time.perf_counter()
        state = to_state(task.global_state)
        self._student.load_state_dict(state)
        teacher = None
        if self.update.uses_teacher(task.round):
            teacher = self._teacher
            teacher.load_state_dict(state)
        watch = None
        if task.watched is not None:
            watch = Watch(task.watched, self._student, self._in_use, self.train_pixels)
        seed = self.config.seed
        result = train_locally(
            self._student,
            teacher,
            self.update,
            self.train_pixels,
            ClientSamples(
                self._on_device(task.labelled),
                self._on_device(task.labels),
                self._on_device(task.unlabelled),
                self._on_device(np.bincount(task.labels, minlength=self.num_classes)),
            ),
            self.config.training,
            round_=task.round,
            epochs_done=task.epochs,
            momentum=None if task.momentum is None else to_state(task.momentum),
            generator=torch_generator(
                seed, Purpose.TRAINING, task.cycle, task.round, task.client, device=str(self.device)
            ),
            after_epoch=None if watch is None else watch.after_epoch,
        )
        trained = to_arrays(self._student.state_dict())
        seconds = time.perf_counter() - start
        return TrainResult(
            task.client,
            trained,
            to_arrays(result.momentum),
            result.epochs,
            result.loss,
            result.steps,
            seconds,
            None if watch is None else watch.arrays,
        )

    def summarise(self, task: QueryTask) -> SummaryResult:
        """Do the first phase of a query that has two."""
        return query_worker.summarise(cast(Summarises, self.query), task, self.num_classes, self._models(task))

    def select(self, task: QueryTask) -> QueryResult:
        """Let the query choose among one client's unlabelled samples."""
        return query_worker.select(self.query, task, self.num_classes, self._models(task), self.config.seed)

    def _models(self, task: QueryTask) -> ClientModels:
        trainer = QueryModelTrainer(self.config, self.train_pixels, self.num_classes, self._drawn_network)
        return ClientModels(task, self._student, self._in_use, self.train_pixels, trainer)

    def _drawn_network(self, generator: torch.Generator) -> nn.Module:
        return self._new_network(generator=generator)

    def predict(self, task: PredictTask) -> NDArray[np.int64]:
        """Return predicted classes of a range of test images, int64 ``(stop - start,)``."""
        self._student.load_state_dict(to_state(task.state))
        return predictions(self._in_use, self.test_pixels, np.arange(task.start, task.stop))

    def _on_device(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.int64, device=self.device)

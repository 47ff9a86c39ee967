"""What one process does for the federation: train a client, answer a query, predict test images."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData
from kafal_pipeline.errors import UserError
from kafal_pipeline.federation.states import Arrays, to_arrays, to_state
from kafal_pipeline.models import build
from kafal_pipeline.models.normalisation import batch_norm_names
from kafal_pipeline.query import QUERIES
from kafal_pipeline.query.base import Outputs, PoolView, Query, QueryModel, Selection
from kafal_pipeline.randomness import Purpose, numpy_generator, torch_generator
from kafal_pipeline.registry import create
from kafal_pipeline.training.devices import choose_device
from kafal_pipeline.training.inference import outputs, predictions
from kafal_pipeline.training.local import ClientSamples, train_locally
from kafal_pipeline.training.pixels import Pixels
from kafal_pipeline.training.precision import in_precision
from kafal_pipeline.update.base import LocalOutcome
from kafal_pipeline.update.factory import make_update

SMALLEST_IMAGE = 5
"""Pixels a side: smaller ones shrink to a single pixel, and batch norm has no variance in a batch of one."""


@dataclass(frozen=True)
class TrainTask:
    """Local training of one client in one round; samples are indices into the training set.

    `momentum`, `epochs` and `steps` are what the client has of this cycle; `kept` is what the update kept for it,
    `server` what it broadcasts beside the model, `previous` the client's last model where the update wants it, and
    `batch_norm` its own batch norms where these stay local.
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
    steps: int = 0
    kept: Arrays = field(default_factory=dict)
    server: Arrays = field(default_factory=dict)
    previous: Arrays | None = None
    batch_norm: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class TrainResult:
    """A trained client: its model, momentum, local epochs in this cycle, mean loss, steps and seconds.

    `travel`, `kept` and `message` are the update's (`kafal_pipeline.update.base`), `parameters` the names of those
    entries of `state` that are parameters, `batch_norm` what the client keeps of it where batch norms stay local.
    """

    client: int
    state: Arrays
    momentum: Arrays
    epochs: int
    loss: float
    steps: int
    seconds: float
    travel: float
    parameters: frozenset[str]
    kept: Arrays
    message: Arrays
    batch_norm: Arrays


@dataclass(frozen=True)
class QueryTask:
    """One client's query; `models` holds the states a query may ask for."""

    client: int
    cycle: int
    budget: int
    labelled: NDArray[np.int64]
    labels: NDArray[np.int64]
    unlabelled: NDArray[np.int64]
    models: dict[QueryModel, Arrays]


@dataclass(frozen=True)
class QueryResult:
    """What one client chose, and the kinds of models that its query asked for."""

    selection: Selection
    models: frozenset[QueryModel]


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
        self.update = make_update(config.update)
        self.query: Query = create("query", config.query.name, config.query.options, QUERIES)
        self._new_network = partial(
            build,
            config.model,
            in_channels=data.channels,
            num_classes=data.num_classes,
            image_size=data.train_images.shape[1:3],
        )
        self._student = self._new_network().to(self.device)
        self._in_use = in_precision(self._student, config.training.precision)
        self._teacher = self._new_network().to(self.device).requires_grad_(False)
        self._previous: nn.Module | None = None

    def train(self, task: TrainTask) -> TrainResult:
        """Train one client from the global model of its round."""
        start = time.perf_counter()
        state = to_state(task.global_state)
        begin = {**state, **to_state(task.batch_norm)}
        self._student.load_state_dict(begin)
        kept, server = to_state(task.kept), to_state(task.server)
        teacher = None
        if self.update.uses_teacher(task.round):
            teacher = self._teacher
            teacher.load_state_dict(state)
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
            correction=self.update.correction(kept, server),
            previous=self._loaded_previous(task.previous),
            steps_done=task.steps,
        )
        trained = to_arrays(self._student.state_dict())
        end, names = to_state(trained), [name for name, _ in self._student.named_parameters()]
        outcome = LocalOutcome(
            {name: begin[name] for name in names}, {name: end[name] for name in names}, kept, server, result.travel
        )
        kept, message = self.update.finish(outcome)
        local = batch_norm_names(self._student) if self.config.federation.batch_norm == "local" else []
        return TrainResult(
            task.client,
            trained,
            to_arrays(result.momentum),
            result.epochs,
            result.loss,
            result.steps,
            time.perf_counter() - start,
            result.travel,
            frozenset(names),
            to_arrays(kept),
            to_arrays(message),
            {name: trained[name] for name in local},
        )

    def _loaded_previous(self, arrays: Arrays | None) -> nn.Module | None:
        """Return a network with the client's last model; made when an update first wants one."""
        if arrays is None:
            return None
        if self._previous is None:
            self._previous = self._new_network().to(self.device).requires_grad_(False)
        self._previous.load_state_dict(to_state(arrays))
        return self._previous

    def select(self, task: QueryTask) -> QueryResult:
        """Let the query choose among one client's unlabelled samples."""
        used: set[QueryModel] = set()

        def forward(kind: QueryModel, samples: NDArray[np.int64]) -> Outputs:
            used.add(kind)
            self._student.load_state_dict(to_state(task.models[kind]))
            return outputs(self._in_use, self.train_pixels, samples)

        pool = PoolView(task.client, task.unlabelled, task.labelled, task.labels, self.num_classes, forward)
        rng = numpy_generator(self.config.seed, Purpose.QUERY, task.cycle, 0, task.client)
        return QueryResult(self.query.select(pool, task.budget, rng), frozenset(used))

    def predict(self, task: PredictTask) -> NDArray[np.int64]:
        """Return predicted classes of a range of test images, int64 ``(stop - start,)``."""
        self._student.load_state_dict(to_state(task.state))
        return predictions(self._in_use, self.test_pixels, np.arange(task.start, task.stop))

    def _on_device(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.int64, device=self.device)

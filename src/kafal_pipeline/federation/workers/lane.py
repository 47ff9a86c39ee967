"""Networks and buffers of one client at a time; they stay in memory while client after client uses them.

A process on a CPU has one lane. A GPU has several, each with a stream of its own: while the kernels of one client run,
those of the others fill the rest of the chip.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kafal_pipeline.common.errors import NotAllowed, kind_of
from kafal_pipeline.common.randomness import Purpose, seed_global_generators
from kafal_pipeline.common.users_code import blamed, own_classes
from kafal_pipeline.config import Config
from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.federation.between_rounds.client_states import ClientState
from kafal_pipeline.federation.workers.tasks import TrainResult, TrainTask
from kafal_pipeline.federation.workers.watching import Watch
from kafal_pipeline.models.normalisation import batch_norm_names
from kafal_pipeline.models.state import Arrays, State, to_arrays, to_state
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.draws import Draws
from kafal_pipeline.training.local import ClientSamples, LocalStart, Networks, local_steps
from kafal_pipeline.training.precision import in_precision
from kafal_pipeline.training.recording import Recordings, cuda_recorder
from kafal_pipeline.training.step import Workspace
from kafal_pipeline.update.base import Correction, LocalOutcome, Update
from kafal_pipeline.update.checks import check_state, checked_pair

AHEAD = 2  # tasks for each lane that are looked at ahead, to find one that the lane has recorded steps for


class Lane:
    """Networks, workspace, stream and generator of the client that trains here.

    `pixels` are the training images on the device; `new_network` makes a network with arbitrary weights.
    """

    def __init__(
        self, config: Config, update: Update, pixels: Pixels, classes: int, new_network: Callable[[], nn.Module]
    ) -> None:
        self.config, self.update, self.pixels, self.classes = config, update, pixels, classes
        self.device = pixels.device
        self._frozen = lambda: new_network().to(self.device).requires_grad_(False)
        self.student = new_network().to(self.device)
        self.in_use = in_precision(self.student, config.training.precision)
        self._local = batch_norm_names(self.student) if config.federation.batch_norm == "local" else []
        self._teacher: nn.Module | None = None
        self._previous: nn.Module | None = None
        self._workspace = Workspace.of(self.student, classes, config.training.momentum, self.device)
        self._draws = Draws.on(self.device)
        strategies = {"update": update, "model": self.student}
        self._own = strategies if own_classes(strategies) else {}
        self._stream: torch.cuda.Stream | None = None
        self._recordings: Recordings | None = None
        if self.device.type == "cuda":
            self._stream = torch.cuda.Stream(self.device)
            if config.training.cuda_graphs:
                self._recordings = Recordings(cuda_recorder(self._stream))

    def advance(self, task: TrainTask, steps: Generator[None, None, TrainResult]) -> TrainResult | None:
        """Do the next step of what `train` returned for a task, on this lane's stream; return the result at the end."""
        to = task.broadcast
        where = f"client {task.site.client}, cycle {to.cycle}, round {to.round}"
        stream = torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext()
        with stream, blamed(where, **self._own):
            try:
                next(steps)
            except StopIteration as end:
                return end.value
        return None

    def train(self, task: TrainTask) -> Generator[None, None, TrainResult]:
        """Train one client from the global model of its round, one step for each value that is asked for."""
        start = time.perf_counter()
        if self._stream is not None:  # streams do not wait for each other: queries and predictions go first
            self._stream.wait_stream(torch.cuda.default_stream(self.device))
        site, to = task.site, task.broadcast
        if self._own:  # layers and losses that draw from the global generators: dropout
            seed_global_generators(self.config.seed, Purpose.UPDATE, to.cycle, to.round, site.client)
        before, pool = site.state, site.pool
        begin = {**to_state(to.model), **to_state(before.batch_norm)}
        self.student.load_state_dict(begin)
        kept, server = to_state(before.kept), to_state(to.server)
        networks = Networks(
            self.student,
            self._loaded("_teacher", to.model if self.update.uses_teacher(to.round) else None),
            self._loaded("_previous", site.model),
            self._workspace,
            self._recordings,
        )
        watch = None if site.watched is None else Watch(site.watched, self.student, self.in_use, self.pixels)
        counts = np.bincount(pool.labels, minlength=self.classes)
        samples = (pool.labelled, pool.labels, self._unlabelled(pool), counts)
        local = LocalStart(
            to.round,
            self._draws.seed(self.config.seed, to.cycle, to.round, site.client),
            before.epochs,
            None if before.momentum is None else to_state(before.momentum),
            before.steps,
            self._correction(kept, server),
        )
        result = yield from local_steps(
            *(networks, self.update, self.pixels, ClientSamples(*map(self._on_device, samples)), self.config.training),
            local,
            None if watch is None else watch.after_epoch,
        )
        trained = to_arrays(self.student.state_dict())
        end, names = to_state(trained), [name for name in self._workspace.names if name not in self._local]
        outcome = LocalOutcome(
            {name: begin[name] for name in names},
            {name: end[name] for name in names},
            kept,
            server,
            result.travel,
            result.sums,
        )
        kept, message = checked_pair(self.update.finish(outcome), "finish", "what it keeps", "its message")
        after = ClientState(
            to_arrays(result.momentum),
            result.epochs,
            before.steps + result.steps,
            to_arrays(kept),
            {name: trained[name] for name in self._local},
        )
        return TrainResult(
            replace(site, state=after, model=trained, watched=None if watch is None else watch.arrays),
            result.loss,
            result.steps,
            time.perf_counter() - start,
            result.travel,
            frozenset(names),
            to_arrays(message),
        )

    def _unlabelled(self, pool: ClientPool) -> NDArray[np.int64]:
        """Return the samples that the update takes unlabelled batches from."""
        sources = {"none": pool.unlabelled[:0], "initial": pool.initial_unlabelled, "current": pool.unlabelled}
        source = self.update.unlabelled_source()
        if source not in sources:
            allowed = ", ".join(map(repr, sources))
            raise NotAllowed(f"`unlabelled_source` returned {source!r}; allowed: {allowed}.")
        return sources[source]

    def _correction(self, kept: State, server: State) -> Correction | None:
        """Return what the update adds to gradients; nothing shifts those of batch norms that stay local."""
        correction = self.update.correction(kept, server)
        if correction is None:
            return None
        if not isinstance(correction, Correction):
            raise NotAllowed(f"`correction` returned {kind_of(correction)}; allowed: a Correction, or None.")
        if correction.shift is None:
            return correction
        shapes = {name: own.shape for name, own in self.student.named_parameters() if name not in self._local}
        check_state(correction.shift, "the shift that `correction` returned", shapes)
        still = {name: torch.zeros(()) for name in self._local}
        return replace(correction, shift={**correction.shift, **still})

    def _loaded(self, which: str, arrays: Arrays | None) -> nn.Module | None:
        """Return a frozen network with a model; made when one is first wanted, since not every update does."""
        if arrays is None:
            return None
        if getattr(self, which) is None:
            setattr(self, which, self._frozen())
        network: nn.Module = getattr(self, which)
        network.load_state_dict(to_state(arrays))
        return network

    def _on_device(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.int64, device=self.device)


def side_by_side(lanes: list[Lane], tasks: Iterable[TrainTask]) -> Generator[tuple[int, TrainResult]]:
    """Train clients in lanes, a step of each in turn, and yield ``(position of the task, result)`` as they end.

    A client goes to its own lane if that is free, since the steps recorded there are of its batch sizes; otherwise a
    free lane takes the first task. What a client computes does not depend on its lane or its neighbours. Tasks are
    taken from the iterable a few ahead, so that a thousand clients' models need not be in memory at once.
    """
    coming = enumerate(tasks)
    waiting: list[tuple[int, TrainTask]] = []
    busy: dict[int, tuple[int, TrainTask, Generator[None, None, TrainResult]]] = {}
    while True:
        waiting += itertools.islice(coming, AHEAD * len(lanes) - len(waiting))
        if not waiting and not busy:
            return
        for own in (True, False):
            for index in range(len(lanes)):
                at = None if index in busy else _next(waiting, index if own else None, len(lanes))
                if at is not None:
                    position, task = waiting.pop(at)
                    busy[index] = position, task, lanes[index].train(task)
        for index in sorted(busy):
            position, task, steps = busy[index]
            result = lanes[index].advance(task, steps)
            if result is not None:
                del busy[index]
                yield position, result


def _next(waiting: list[tuple[int, TrainTask]], lane: int | None, lanes: int) -> int | None:
    """Return where the first waiting task of a client of that lane (None: of any) stands; None if there is none."""
    return next((at for at, (_, task) in enumerate(waiting) if lane is None or task.site.client % lanes == lane), None)

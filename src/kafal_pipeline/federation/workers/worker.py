"""Runs the federation's tasks in one process: trains clients, answers queries, predicts test images."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.users_code import blamed
from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData
from kafal_pipeline.federation.data_checks import check_data
from kafal_pipeline.federation.workers import query_worker
from kafal_pipeline.federation.workers.lane import Lane, side_by_side
from kafal_pipeline.federation.workers.query_models import QueryModelTrainer
from kafal_pipeline.federation.workers.query_worker import ClientModels, QueryResult, QueryTask, SummaryResult
from kafal_pipeline.federation.workers.tasks import PredictTask, TrainResult, TrainTask
from kafal_pipeline.models.factory import build
from kafal_pipeline.models.state import to_state
from kafal_pipeline.query.base import Summarises
from kafal_pipeline.query.factory import make_query
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.devices import choose_device
from kafal_pipeline.training.inference import logits
from kafal_pipeline.training.precision import prepare
from kafal_pipeline.update.factory import make_update

LANES_ON_A_GPU = 10  # of ``training.processes: auto``


class Worker:
    """The data on its device and the networks, made once a process; all map the same store of images."""

    def __init__(self, data: ImageData, config: Config) -> None:
        check_data(config, data)
        self.config = config
        self.device = choose_device(config.training.device)
        prepare(self.device, config.training.precision, deterministic=config.training.deterministic)
        mean, std = data.mean.tolist(), data.std.tolist()
        self.train_pixels = Pixels(data.train_images, mean, std, self.device)
        self.test_pixels = Pixels(data.test_images, mean, std, self.device)
        self.num_classes = data.num_classes
        self.query = make_query(config.query)
        self._new_network = partial(
            build,
            config.model,
            in_channels=data.channels,
            num_classes=data.num_classes,
            image_size=data.train_images.shape[1:3],
        )
        self.update = make_update(config.update)
        self._lanes = [self._new_lane()]

    def _new_lane(self) -> Lane:
        return Lane(self.config, self.update, self.train_pixels, self.num_classes, self._new_network)

    def train(self, task: TrainTask) -> TrainResult:
        """Train one client from the global model of its round."""
        _, result = next(side_by_side(self._lanes[:1], [task]))
        return result

    def train_side_by_side(self, tasks: Iterable[TrainTask]) -> Iterator[tuple[int, TrainResult]]:
        """Train clients at the same time, as a GPU can; yield ``(position of the task, result)``."""
        asked = self.config.training.processes
        lanes = min(LANES_ON_A_GPU if asked == "auto" else asked, self.config.partition.clients)
        while len(self._lanes) < lanes:
            self._lanes.append(self._new_lane())
        yield from side_by_side(self._lanes[:lanes], tasks)

    def summarise(self, task: QueryTask) -> SummaryResult:
        """Do the first phase of a query that has two."""
        query = cast(Summarises, self.query)
        return query_worker.summarise(query, task, self.num_classes, self._models(task), self.config.seed)

    def select(self, task: QueryTask) -> QueryResult:
        """Let the query choose among one client's unlabelled samples."""
        return query_worker.select(self.query, task, self.num_classes, self._models(task), self.config.seed)

    def _models(self, task: QueryTask) -> ClientModels:
        trainer = QueryModelTrainer(self.config, self.train_pixels, self.num_classes, self._new_network)
        lane = self._lanes[0]
        return ClientModels(task, lane.student, lane.in_use, self.train_pixels, trainer)

    def predict(self, task: PredictTask) -> NDArray[np.float32]:
        """Return the logits of a range of test images, float32 ``(stop - start, C)``."""
        lane = self._lanes[0]
        with blamed(f"test images {task.start} to {task.stop}", model=lane.student):
            lane.student.load_state_dict(to_state(task.state))
            return logits(lane.in_use, self.test_pixels, np.arange(task.start, task.stop))

"""Times a short piece of the run: the size of its model, and its training steps on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.machine import cores
from kafal_pipeline.data import ImageData
from kafal_pipeline.pipelines.doctor.workload import labelled_sizes, participants_of, steps_an_epoch

if TYPE_CHECKING:
    from kafal_pipeline.config import Config
    from kafal_pipeline.federation.workers.tasks import TrainTask
    from kafal_pipeline.federation.workers.worker import Worker
    from kafal_pipeline.models.state import Arrays
    from kafal_pipeline.pipelines.doctor.shape import DataShape

TRAINING_SECONDS = 2.0
PREDICTION_SECONDS = 0.5
MOST_IMAGES, MOST_BYTES = 2048, 64 << 20
"""Random images that are trained on and predicted: what is in a picture does not change the time it takes."""


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes
    ----------
    model_bytes
        Of one model.
    step_seconds
        Of a client's training step: of one that trains alone on a CPU, of one among `side_by_side` on a GPU.
    alone_seconds
        The same without other programs: the processor's time on a CPU.
    image_seconds
        Of predicting one image.
    side_by_side
        Clients that train at the same time.
    """

    model_bytes: int
    step_seconds: float
    alone_seconds: float
    image_seconds: float
    side_by_side: int


def probe(config: Config, shape: DataShape) -> Measured | str:
    """Train a few steps of the configured model, update and batch; return the times, or why it could not be done."""
    try:
        return _measure(config, shape)
    except UserError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:  # what torch raises where memory is short or a kernel is missing
        return f"a training step failed ({type(error).__name__}: {next(iter(str(error).splitlines()), 'no memory')})"


def _measure(config: Config, shape: DataShape) -> Measured:
    from kafal_pipeline.federation.workers.worker import LANES_ON_A_GPU, Worker
    from kafal_pipeline.models.state import initial_state, size_in_bytes, to_arrays
    from kafal_pipeline.training.devices import single_thread

    once = config.model_copy(update={"training": config.training.model_copy(update={"local_epochs": 1})})
    state = initial_state(
        config.model,
        in_channels=shape.image[2],
        num_classes=shape.classes,
        seed=config.seed,
        cycle=0,
        image_size=shape.image[:2],
    )
    worker, arrays = Worker(_random_images(shape), once), to_arrays(state)
    on_gpu = worker.device.type != "cpu"
    asked, (usual, _) = config.training.processes, participants_of(config)
    wanted = (LANES_ON_A_GPU if on_gpu else cores()) if asked == "auto" else asked
    side_by_side = min(wanted, usual) if on_gpu else min(wanted, usual, cores())
    with single_thread():
        step, alone = _step_seconds(worker, once, shape, arrays, side_by_side if on_gpu else 1)
        image = _image_seconds(worker, arrays)
    return Measured(size_in_bytes(state), step, alone, image, side_by_side)


def _random_images(shape: DataShape) -> ImageData:
    """Return data of the right shape in memory; training and test images are the same."""
    height, width, channels = shape.image
    count = max(16, min(MOST_IMAGES, MOST_BYTES // (height * width * channels)))
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % shape.classes
    statistics = np.full(channels, 0.5)
    classes = tuple(str(label) for label in range(shape.classes))
    return ImageData("random", pixels, labels, pixels, labels, classes, statistics, statistics)


def _step_seconds(worker: Worker, config: Config, shape: DataShape, state: Arrays, lanes: int) -> tuple[float, float]:
    """Return the seconds of a step of one among `lanes` clients, each in the middle of the run; as is, and alone."""
    sizes = labelled_sizes(config, shape)
    middle = sizes[len(sizes) // 2]

    def train(steps: int) -> int:
        count = min(middle, steps * config.training.batch_size)
        tasks = [_task(client, count, config, worker, state) for client in range(lanes)]
        if lanes == 1:
            return worker.train(tasks[0]).steps
        return sum(result.steps for _, result in worker.train_side_by_side(tasks))

    steps, begin = 1, time.perf_counter()
    train(steps)  # the first call of all is slow, and tells how many steps there is time for
    whole = steps_an_epoch(config, middle)
    if worker.device.type == "cpu":
        steps = max(1, min(whole, int(TRAINING_SECONDS / (time.perf_counter() - begin))))
    else:  # steps are recorded when their shapes come up for the second time
        steps = whole
        train(steps)
        train(steps)
    done, begin, own = 0, time.perf_counter(), time.process_time()
    while not done or time.perf_counter() - begin < TRAINING_SECONDS:
        done += train(steps)
    wall, processor = time.perf_counter() - begin, time.process_time() - own
    alone = min(wall, processor) if worker.device.type == "cpu" else wall
    return wall / done * lanes, alone / done * lanes


def _task(client: int, count: int, config: Config, worker: Worker, state: Arrays) -> TrainTask:
    from kafal_pipeline.federation.workers.tasks import TrainTask

    images = len(worker.train_pixels)
    labelled = np.arange(count, dtype=np.int64) % images
    return TrainTask(
        client,
        0,
        config.federation.rounds // 2,  # updates may do less in the first ones
        state,
        None,
        0,
        labelled,
        labelled % worker.num_classes,
        np.arange(images, dtype=np.int64),
    )


def _image_seconds(worker: Worker, state: Arrays) -> float:
    """Return the seconds of predicting one image."""
    from kafal_pipeline.federation.workers.tasks import PredictTask

    few, count = 16, len(worker.test_pixels)
    for _ in range(2):  # the first call of all is slow
        begin = time.perf_counter()
        worker.predict(PredictTask(state, 0, few))
    many = max(few, min(count, int(PREDICTION_SECONDS * few / (time.perf_counter() - begin))))
    begin = time.perf_counter()
    worker.predict(PredictTask(state, 0, many))
    return (time.perf_counter() - begin) / many

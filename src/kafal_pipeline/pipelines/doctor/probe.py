"""Times a short piece of the run: the size of its model, and its training steps on this machine."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.machine import cores
from kafal_pipeline.data import read_store
from kafal_pipeline.data.sources import RawData
from kafal_pipeline.data.store.write import write_store
from kafal_pipeline.pipelines.doctor.workload import labelled_sizes, participants_of, steps_an_epoch

if TYPE_CHECKING:
    from kafal_pipeline.config import Config
    from kafal_pipeline.federation.workers.pool import Workers
    from kafal_pipeline.federation.workers.tasks import TrainTask
    from kafal_pipeline.models.state import Arrays
    from kafal_pipeline.pipelines.doctor.shape import DataShape

TRAINING_SECONDS = 2.0
PREDICTION_SECONDS = 0.5
FEW_IMAGES = 12  # predicted at the least, so that what a task costs besides does not count as much as the images
LONG_SECONDS = 10.0  # of a step that is not done a second time, though the first of all takes a second or two more

MOST_IMAGES, MOST_BYTES = 2048, 32 << 20
"""Random images that are trained on and predicted: what is in a picture does not change the time it takes."""


@dataclass(frozen=True)
class Measured:
    """What was measured, while as many clients trained side by side as will in the run."""

    model_bytes: int  # of one model
    step_seconds: float  # of a client's training step
    alone_seconds: float  # the same without other programs: the processor's time on a CPU
    image_seconds: float  # of predicting one image
    side_by_side: int  # clients that train at the same time
    processes: int  # processes that the run trains and queries in
    process_bytes: int  # memory of the largest of them


def probe(config: Config, shape: DataShape) -> Measured | str:
    """Train a few steps of the configured model, update and batch; return the times, or why it could not be done."""
    try:
        with tempfile.TemporaryDirectory(prefix="kafal_doctor_") as folder:
            return _measure(config, shape, Path(folder) / "images")
    except UserError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:  # what torch raises where memory is short or a kernel is missing
        return f"a training step failed ({type(error).__name__}: {next(iter(str(error).splitlines()), 'no memory')})"


def _measure(config: Config, shape: DataShape, folder: Path) -> Measured:
    """Measure with the run's own processes; `folder` is where their images are put."""
    from kafal_pipeline.common.processes import processes_on_a_cpu
    from kafal_pipeline.federation.workers.pool import Workers
    from kafal_pipeline.federation.workers.worker import LANES_ON_A_GPU
    from kafal_pipeline.models.state import initial_state, size_in_bytes, to_arrays
    from kafal_pipeline.training.devices import choose_device

    state = initial_state(
        config.model,
        in_channels=shape.image[2],
        num_classes=shape.classes,
        seed=config.seed,
        cycle=0,
        image_size=shape.image[:2],
    )
    on_gpu = choose_device(config.training.device).type != "cpu"
    asked, (usual, _) = config.training.processes, participants_of(config)
    wanted = (LANES_ON_A_GPU if on_gpu else cores()) if asked == "auto" else asked
    side_by_side = min(wanted, usual) if on_gpu else min(wanted, usual, cores())
    changes = {"local_epochs": 1} if on_gpu else {"local_epochs": 1, "processes": side_by_side}
    once = config.model_copy(update={"training": config.training.model_copy(update=changes)})
    write_store(config.dataset.model_copy(update={"mean": None, "std": None}), _random_images(shape), "", folder)
    images, arrays = read_store(folder, trusted=True), to_arrays(state)
    with Workers(images, once) as workers:
        image = _image_seconds(workers, len(images.test_labels), arrays, 1 if on_gpu else side_by_side)
        step, alone = _step_seconds(workers, once, shape, len(images.train_labels), arrays, side_by_side, on_gpu=on_gpu)
        memory = max(process.memory_info().rss for process in _processes(workers))
    processes = 1 if on_gpu else processes_on_a_cpu(config.training.processes, config.partition.clients)
    return Measured(size_in_bytes(state), step, alone, image, side_by_side, processes, memory)


def _random_images(shape: DataShape) -> RawData:
    """Return data of the right shape in memory; training and test images are the same."""
    height, width, channels = shape.image
    count = max(16, min(MOST_IMAGES, MOST_BYTES // (height * width * channels)))
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    pixels = pixels.astype(shape.dtype, copy=False)
    labels = np.arange(count, dtype=np.int64) % shape.classes
    return RawData(pixels, labels, pixels, labels, tuple(str(label) for label in range(shape.classes)))


def _step_seconds(
    workers: Workers, config: Config, shape: DataShape, images: int, state: Arrays, lanes: int, *, on_gpu: bool
) -> tuple[float, float]:
    """Return the seconds of a step of one among `lanes` clients, each in the middle of the run; as is, and alone."""
    sizes = labelled_sizes(config, shape)
    middle = sizes[len(sizes) // 2]
    whole = steps_an_epoch(config, middle)
    batch = round(sum(sizes) / sum(steps_an_epoch(config, size) for size in sizes))

    def train(steps: int) -> int:
        # A step alone gets as many images as the run's have on the average, which are fewer than a batch's at most.
        count = batch if steps == 1 else min(middle, steps * config.training.batch_size)
        tasks = [_task(client, count, config, images, shape.classes, state) for client in range(lanes)]
        return sum(result.steps for result in workers.map("train", tasks))

    def seconds(steps: int, least: float) -> tuple[float, float]:
        done, begin, own = 0, time.perf_counter(), _processor_seconds(workers)
        while not done or time.perf_counter() - begin < least:
            done += train(steps)
        wall = (time.perf_counter() - begin) / done * lanes
        return wall, wall if on_gpu else min(wall, (_processor_seconds(workers) - own) / done)

    first = seconds(1, 0)  # a little slow, and tells how many steps there is time for
    if first[1] > LONG_SECONDS and not on_gpu:
        return first
    if on_gpu:  # steps are recorded when their shapes come up for the second time
        train(whole)
        train(whole)
    return seconds(whole if on_gpu else max(1, min(whole, int(TRAINING_SECONDS / first[0]))), TRAINING_SECONDS)


def _task(client: int, count: int, config: Config, images: int, classes: int, state: Arrays) -> TrainTask:
    from kafal_pipeline.data.pools import ClientPool
    from kafal_pipeline.federation.site import Site
    from kafal_pipeline.federation.workers.tasks import Broadcast, TrainTask

    labelled, unlabelled = np.arange(count, dtype=np.int64) % images, np.arange(images, dtype=np.int64)
    site = Site(client, ClientPool(labelled, labelled % classes, unlabelled, unlabelled))
    return TrainTask(site, Broadcast(0, config.federation.rounds // 2, state))  # updates may do less in first rounds


def _image_seconds(workers: Workers, count: int, state: Arrays, lanes: int) -> float:
    """Return the seconds of predicting one image while `lanes` processes do so."""
    from kafal_pipeline.federation.workers.tasks import PredictTask

    def predict(few: int) -> float:
        begin = time.perf_counter()
        workers.map("predict", [PredictTask(state, 0, few)] * lanes)
        return time.perf_counter() - begin

    predict(1)  # the first call of all is slow: processes start
    few, seconds = FEW_IMAGES, predict(FEW_IMAGES)
    while seconds < PREDICTION_SECONDS and few < count:
        few = min(count, 4 * few)
        seconds = predict(few)
    return seconds / few


def _processes(workers: Workers) -> list[psutil.Process]:
    """Return the processes that train."""
    return [psutil.Process(process.pid) for process in workers._processes()] or [psutil.Process()]


def _processor_seconds(workers: Workers) -> float:
    """Return how much of the processor's time they have used."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in _processes(workers)))

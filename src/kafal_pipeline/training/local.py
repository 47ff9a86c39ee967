"""Trains one client locally for one round."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kafal_pipeline.config import TrainingConfig
from kafal_pipeline.models.flat import draw_from
from kafal_pipeline.training.batches import labelled_batches, unlabelled_batches
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.draws import Draws
from kafal_pipeline.training.inference import chunk_size
from kafal_pipeline.training.precision import in_precision
from kafal_pipeline.training.recording import Recordings
from kafal_pipeline.training.step import Step, Workspace
from kafal_pipeline.update.base import Correction, StepView, Update
from kafal_pipeline.update.checks import checked_fit


@dataclass(frozen=True)
class ClientSamples:
    """What one client trains on, int64 on the device; `unlabelled` is the pool that the update asks for, or empty."""

    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    label_counts: Tensor


@dataclass(frozen=True)
class Networks:
    """The networks of a client's round, and what their steps read and write."""

    student: nn.Module  # holds the global model of this round; trained in place
    teacher: nn.Module | None = None  # the same model, frozen; None if the update uses none in this round
    # the client's own model after its last round, frozen; None if the update uses none, or at its first
    previous: nn.Module | None = None
    workspace: Workspace | None = None  # of the student; None makes one for this round
    # where steps are recorded and replayed, for these networks and this workspace; None does each as it is
    recordings: Recordings | None = None


@dataclass(frozen=True)
class LocalStart:
    """Where a client stands when its round begins.

    - `round`: round within the cycle, from 0.
    - `epochs`: local epochs that this client has trained in this cycle: the learning rate goes by them.
    - `momentum`: its momentum buffers from its last round in this cycle; None at its first, empty without momentum.
    - `steps`: how often a gradient was added to `momentum`.
    """

    round: int
    draws: Draws
    epochs: int = 0
    momentum: Mapping[str, Tensor] | None = None
    steps: int = 0
    correction: Correction | None = None


@dataclass(frozen=True)
class LocalResult:
    """What local training leaves behind besides the student.

    Momentum by parameter; epochs so far in the cycle; of this round the mean loss, the number of steps, and the
    `travel` and `sums` of `kafal_pipeline.update.base.LocalOutcome`.
    """

    momentum: dict[str, Tensor]
    epochs: int
    loss: float
    steps: int
    travel: float
    sums: dict[str, Tensor] = field(default_factory=dict)


def learning_rate(training: TrainingConfig, epoch: int) -> float:
    """Return the rate of a client's `epoch`-th local epoch within the cycle, counted from 1.

    >>> training = TrainingConfig(lr=0.1, lr_drop_epoch=260)
    >>> learning_rate(training, 259), round(learning_rate(training, 260), 6)
    (0.1, 0.01)
    """
    if training.lr_drop_epoch is not None and epoch >= training.lr_drop_epoch:
        return training.lr * training.lr_drop_factor
    return training.lr


def train_locally(networks: Networks, *args: object, **options: object) -> LocalResult:
    """Do all of `local_steps` at once; its parameters are these."""
    steps = local_steps(networks, *args, **options)  # type: ignore[arg-type]
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def local_steps(
    networks: Networks,
    update: Update,
    pixels: Pixels,
    samples: ClientSamples,
    training: TrainingConfig,
    start: LocalStart,
    after_epoch: Callable[[int], None] | None = None,
) -> Generator[None, None, LocalResult]:
    """Train the student in place for the configured local epochs, one step for each value that is asked for.

    On a GPU a step is only started, so that one thread can keep several clients going. `after_epoch` is called with the
    number of every local epoch that ends, and must leave the student in training mode. Unlabelled batches are drawn
    from a new shuffle every local epoch, one per labelled batch. An update that takes no steps does all at once.
    """
    student = networks.student
    student.train()
    draw_from(student, start.draws.update)
    if not update.takes_steps():
        result = fitted(networks, update, pixels, samples, training, start)
        yield
        if after_epoch is not None:
            after_epoch(result.epochs)
        return result
    space = networks.workspace or Workspace.of(
        student, len(samples.label_counts), training.momentum, samples.label_counts.device
    )
    space.begin(start.momentum, samples.label_counts, start.correction)
    step = Step(
        in_precision(student, training.precision),
        None if networks.teacher is None else in_precision(networks.teacher, training.precision),
        None if networks.previous is None else in_precision(networks.previous, training.precision),
        update,
        pixels,
        training,
        space,
        start.round,
        start.draws,
    )
    kind = (update.phase(start.round), networks.teacher is None, networks.previous is None, space.kind)
    inertia = (1 - training.momentum**start.steps) / (1 - training.momentum) if start.momentum else 0.0
    travel, steps = 0.0, 0
    source = update.unlabelled_source()
    for epoch in range(start.epochs + 1, start.epochs + training.local_epochs + 1):
        lr = learning_rate(training, epoch)
        space.set_lr(lr)
        batches = labelled_batches(len(samples.labelled), training.batch_size, training.batches, start.draws.labelled)
        others = unlabelled_batches(len(samples.unlabelled), training.batch_size, start.draws.unlabelled)
        for positions in batches:
            other = next(others) if source != "none" else None
            batch = (
                samples.labelled[positions],
                samples.labels[positions],
                None if other is None else samples.unlabelled[other],
            )
            if networks.recordings is None:
                step(*batch)
            else:
                networks.recordings.call(kind, step, *batch)
            steps += 1
            inertia = training.momentum * inertia + 1
            travel += lr * inertia
            yield
        if after_epoch is not None:
            after_epoch(epoch)
    kept = {name: buffer.clone() for name, buffer in zip(space.names, space.momentum, strict=False)}
    return LocalResult(kept, start.epochs + training.local_epochs, float(space.loss) / max(steps, 1), steps, travel)


@torch.no_grad()
def fitted(
    networks: Networks,
    update: Update,
    pixels: Pixels,
    samples: ClientSamples,
    training: TrainingConfig,
    start: LocalStart,
) -> LocalResult:
    """Let an update that takes no steps train the student; it counts as one epoch of one step."""
    student = in_precision(networks.student, training.precision).eval()
    size, rest = chunk_size(pixels), (samples.label_counts, start.round, start.draws.update)
    batches = (
        StepView(student, None, pixels.batch(images), labels, None, *rest)
        for images, labels in zip(samples.labelled.split(size), samples.labels.split(size), strict=True)
    )
    loss, sums = checked_fit(update.fit(student, batches))
    student.train()
    return LocalResult({}, start.epochs + 1, loss, 1, 0.0, sums)

"""One client's local training in one round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from kafal_pipeline.config import TrainingConfig
from kafal_pipeline.training.batches import labelled_batches, unlabelled_batches
from kafal_pipeline.training.pixels import Pixels
from kafal_pipeline.training.precision import in_precision
from kafal_pipeline.update.base import StepView, Update


@dataclass(frozen=True)
class ClientSamples:
    """What one client trains on, on the device: indices int64, labels int64, counts ``(C,)`` int64.

    `unlabelled` is the pool that the update asks for; it may be empty.
    """

    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    label_counts: Tensor


@dataclass(frozen=True)
class LocalResult:
    """What local training leaves behind besides the student: momentum by parameter, epochs so far, mean loss, steps."""

    momentum: dict[str, Tensor]
    epochs: int
    loss: float
    steps: int


def learning_rate(training: TrainingConfig, epoch: int) -> float:
    """Return the rate of a client's `epoch`-th local epoch within the cycle, counted from 1.

    Examples
    --------
    >>> training = TrainingConfig(lr=0.1, lr_drop_epoch=260)
    >>> learning_rate(training, 259), round(learning_rate(training, 260), 6)
    (0.1, 0.01)
    """
    if training.lr_drop_epoch is not None and epoch >= training.lr_drop_epoch:
        return training.lr * training.lr_drop_factor
    return training.lr


def train_locally(
    student: nn.Module,
    teacher: nn.Module | None,
    update: Update,
    pixels: Pixels,
    samples: ClientSamples,
    training: TrainingConfig,
    *,
    round_: int,
    epochs_done: int,
    momentum: Mapping[str, Tensor] | None,
    generator: torch.Generator,
    after_epoch: Callable[[int], None] | None = None,
) -> LocalResult:
    """Train `student` in place for the configured local epochs.

    Parameters
    ----------
    student
        Holds the global model of this round.
    teacher
        The same model, frozen; None if the update uses none in this round.
    update
        Gives the loss of a step.
    round_
        Round within the cycle, from 0.
    epochs_done
        Local epochs that this client has trained in this cycle: the learning rate goes by them.
    momentum
        This client's momentum buffers from its last round in this cycle; None at its first, empty without momentum.
    generator
        The only source of randomness: shuffles, augmentation, mixing.
    after_epoch
        Called with the number of every local epoch that ends; must leave the student in training mode.

    Notes
    -----
    Unlabelled batches are drawn afresh from a new shuffle every local epoch, one per labelled batch.
    """
    student.train()
    parameters: list[Tensor] = list(student.parameters())
    names = [name for name, _ in student.named_parameters()]
    buffers: list[Tensor | None] = [None] * len(parameters)
    if momentum:
        buffers = [  # in the parameters' layout, whatever the one they were kept in: see _sgd_step
            torch.empty_like(parameter).copy_(momentum[name]) for name, parameter in zip(names, parameters, strict=True)
        ]
    student_in_use = in_precision(student, training.precision)
    teacher_in_use = None if teacher is None else in_precision(teacher, training.precision)
    total = torch.zeros((), dtype=torch.float64, device=pixels.device)
    steps = 0
    source = update.unlabelled_source()
    for epoch in range(epochs_done + 1, epochs_done + training.local_epochs + 1):
        lr = learning_rate(training, epoch)
        batches = labelled_batches(len(samples.labelled), training.batch_size, training.batches, generator)
        others = unlabelled_batches(len(samples.unlabelled), training.batch_size, generator)
        for positions in batches:
            images = pixels.augmented(samples.labelled[positions], training.augmentation, generator)
            other = next(others) if source != "none" else None
            unlabelled = (
                None if other is None else pixels.augmented(samples.unlabelled[other], training.augmentation, generator)
            )
            step = StepView(
                student_in_use,
                teacher_in_use,
                images,
                samples.labels[positions],
                unlabelled,
                samples.label_counts,
                round_,
                generator,
            )
            loss = update.client_loss(step)
            gradients = list(torch.autograd.grad(loss, parameters, materialize_grads=True))
            _sgd_step(parameters, gradients, buffers, lr, training)
            total += loss.detach()
            steps += 1
        if after_epoch is not None:
            after_epoch(epoch)
    kept = {name: buffer for name, buffer in zip(names, buffers, strict=True) if buffer is not None}
    return LocalResult(kept, epochs_done + training.local_epochs, float(total) / max(steps, 1), steps)


@torch.no_grad()
def _sgd_step(
    parameters: list[Tensor],
    gradients: list[Tensor],
    buffers: list[Tensor | None],
    lr: float,
    training: TrainingConfig,
) -> None:
    """Do one step of ``torch.optim.SGD``; `buffers` is filled at the first.

    The functional form: the class imports torch's compiler, four seconds of work for nothing.
    """
    # The fused kernel walks through memory: a gradient in another layout than its parameter's would be misread.
    aligned = [
        gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
    sgd(
        parameters,
        aligned,
        buffers,
        weight_decay=training.weight_decay,
        momentum=training.momentum,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        has_sparse_grad=False,
        fused=parameters[0].device.type in {"cpu", "cuda"},  # one kernel for all parameters
        foreach=False,
    )

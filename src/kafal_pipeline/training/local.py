"""One client's local training in one round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kafal_pipeline.config import TrainingConfig
from kafal_pipeline.training.batches import labelled_batches, unlabelled_batches
from kafal_pipeline.training.pixels import Pixels
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
        This client's momentum buffers from its last round in this cycle, None at its first.
    generator
        The only source of randomness: shuffles, augmentation, mixing.

    Notes
    -----
    Unlabelled batches are drawn afresh from a new shuffle every local epoch, one per labelled batch.
    """
    student.train()
    # Fused: one kernel for all parameters, which matters for small networks.
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        fused=pixels.device.type in {"cpu", "cuda"},
    )
    if momentum is not None:
        for name, parameter in student.named_parameters():
            buffer = momentum[name].to(parameter.device).clone(memory_format=torch.preserve_format)
            optimizer.state[parameter]["momentum_buffer"] = buffer
    total = torch.zeros((), dtype=torch.float64, device=pixels.device)
    steps = 0
    source = update.unlabelled_source()
    for epoch in range(epochs_done + 1, epochs_done + training.local_epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, epoch)
        batches = labelled_batches(len(samples.labelled), training.batch_size, training.batches, generator)
        others = unlabelled_batches(len(samples.unlabelled), training.batch_size, generator)
        for positions in batches:
            images = pixels.augmented(samples.labelled[positions], training.augmentation, generator)
            other = next(others) if source != "none" else None
            unlabelled = (
                None
                if other is None
                else pixels.augmented(samples.unlabelled[other], training.augmentation, generator)
            )
            step = StepView(
                student,
                teacher,
                images,
                samples.labels[positions],
                unlabelled,
                samples.label_counts,
                round_,
                generator,
            )
            optimizer.zero_grad(set_to_none=True)
            loss = update.client_loss(step)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            steps += 1
    buffers = {name: optimizer.state[parameter].get("momentum_buffer") for name, parameter in student.named_parameters()}
    kept = {name: buffer for name, buffer in buffers.items() if buffer is not None}
    return LocalResult(kept, epochs_done + training.local_epochs, float(total) / max(steps, 1), steps)

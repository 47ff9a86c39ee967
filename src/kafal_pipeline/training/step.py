"""One step of local training: one function for every device, which a GPU can record and replay.

It waits for no result of the device and decides nothing by a tensor's value. All that changes from step to step comes
in as tensors, and all that it reads or writes besides stays where it is in memory (`Workspace`), so that a recorded
step (`kafal_pipeline.training.recording`) serves every later one of the same shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from kafal_pipeline.common.errors import NotAllowed, kind_of
from kafal_pipeline.config import TrainingConfig
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.draws import Draws
from kafal_pipeline.update.base import Correction, StepView, Update


@dataclass
class Workspace:
    """What the steps of one network read and write besides it, at addresses that stay."""

    parameters: list[Tensor]  # `parameters`, `names`: the student's
    names: list[str]
    momentum: list[Tensor]  # a buffer for each parameter, zeros at the start; empty without momentum
    loss: Tensor  # sum of the losses so far, float64
    lr: Tensor | float  # learning rate: a tensor on a GPU, where a recorded step reads it, else a number
    label_counts: Tensor  # the client's labelled samples of each class, ``(C,)`` int64
    # `pull`, `shift`, `broadcast`: the update's correction of gradients (`kafal_pipeline.update.base.Correction`); the
    # parameters as broadcast. Once made, `shift` and `broadcast` stay, since recorded steps read them: `pull` and
    # `shifted` say whether they are used in this round
    pull: float = 0.0
    shifted: bool = False
    shift: list[Tensor] = field(default_factory=list)
    broadcast: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, student: nn.Module, classes: int, momentum: float, device: torch.device) -> Self:
        """Make the workspace of a network."""
        parameters: list[Tensor] = list(student.parameters())
        return cls(
            parameters,
            [name for name, _ in student.named_parameters()],
            [torch.zeros_like(parameter) for parameter in parameters] if momentum else [],
            torch.zeros((), dtype=torch.float64, device=device),
            torch.zeros((), device=device) if device.type == "cuda" else 0.0,
            torch.zeros(classes, dtype=torch.int64, device=device),
        )

    @torch.no_grad()
    def begin(self, momentum: Mapping[str, Tensor] | None, label_counts: Tensor, correction: Correction | None) -> None:
        """Take on a client's round; the student holds the broadcast model."""
        for name, buffer in zip(self.names, self.momentum, strict=False):
            # Copied, and hence in the parameter's layout, whatever the one it was kept in: see `sgd_step`.
            buffer.copy_(momentum[name]) if momentum else buffer.zero_()
        self.loss.zero_()
        self.label_counts.copy_(label_counts)
        self.pull = correction.pull if correction else 0.0
        shift = correction.shift if correction else None
        self.shifted = shift is not None
        if shift is not None:
            self._fill(self.shift, [shift[name] for name in self.names])
        if self.pull:
            self._fill(self.broadcast, self.parameters)

    def _fill(self, kept: list[Tensor], values: list[Tensor]) -> None:
        if not kept:
            kept.extend(torch.empty_like(parameter) for parameter in self.parameters)
        for buffer, value in zip(kept, values, strict=True):
            buffer.copy_(value)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next steps."""
        if isinstance(self.lr, Tensor):
            self.lr.fill_(lr)
        else:
            self.lr = lr

    @property
    def kind(self) -> tuple[float, bool]:
        """Which arithmetic the correction adds to a step."""
        return self.pull, self.shifted


@dataclass(frozen=True)
class Step:
    """A step of one client in one round, as a function of the batch alone; networks compute in their precision."""

    student: nn.Module
    teacher: nn.Module | None
    previous: nn.Module | None
    update: Update
    pixels: Pixels
    training: TrainingConfig
    workspace: Workspace
    round: int
    draws: Draws

    def __call__(self, labelled: Tensor, labels: Tensor, unlabelled: Tensor | None) -> None:
        """Train on images ``labelled`` (int64 indices) with ``labels``, and on images ``unlabelled``, if any."""
        space, augmentation, draws = self.workspace, self.training.augmentation, self.draws
        view = StepView(
            self.student,
            self.teacher,
            self.pixels.augmented(labelled, augmentation, draws.labelled),
            labels,
            None if unlabelled is None else self.pixels.augmented(unlabelled, augmentation, draws.unlabelled),
            space.label_counts,
            self.round,
            draws.update,
            self.previous,
        )
        gradients: list[Tensor] = []
        reached = False
        for term in self.update.loss_terms(view):
            _check_term(term)
            found = torch.autograd.grad(term, space.parameters, allow_unused=True)
            reached = reached or any(gradient is not None for gradient in found)
            more = [torch.zeros_like(p) if g is None else g for p, g in zip(space.parameters, found, strict=True)]
            if gradients:
                torch._foreach_add_(gradients, more)
            else:
                gradients = more
            space.loss.add_(term.detach())
        if not reached:
            raise NotAllowed(
                "the loss has no gradient for any parameter of the student; it must be computed from what "
                "step.student(...) returns, without detach() or no_grad()."
            )
        sgd_step(space, _corrected(gradients, space), self.training)


def _check_term(term: object) -> None:
    """Raise NotAllowed unless a loss is a scalar that can be differentiated."""
    if not torch.is_grad_enabled():
        raise NotAllowed(
            "computing the loss switched gradients off (torch.set_grad_enabled); use `with torch.no_grad():`."
        )
    if not isinstance(term, Tensor) or term.dim() or not term.is_floating_point():
        raise NotAllowed(f"the loss is {kind_of(term)}; allowed: a scalar, such as the mean over the batch.")
    if not term.requires_grad:
        raise NotAllowed("the loss has no gradient: it was computed without gradients, or from numbers alone.")


@torch.no_grad()
def _corrected(gradients: list[Tensor], space: Workspace) -> list[Tensor]:
    """Add ``pull * (w - w_broadcast) + shift``."""
    if space.pull:
        away = torch._foreach_sub(space.parameters, space.broadcast)
        gradients = list(torch._foreach_add(gradients, list(away), alpha=space.pull))
    return list(torch._foreach_add(gradients, space.shift)) if space.shifted else gradients


@torch.no_grad()
def sgd_step(space: Workspace, gradients: list[Tensor], training: TrainingConfig) -> None:
    """Do one step of ``torch.optim.SGD``, whose class imports torch's compiler: four seconds of work for nothing."""
    # The fused kernel walks through memory: a gradient in another layout than its parameter's would be misread.
    aligned = [
        gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
        for parameter, gradient in zip(space.parameters, gradients, strict=True)
    ]
    sgd(
        space.parameters,
        aligned,
        list(space.momentum) or [None] * len(aligned),  # type: ignore[arg-type]
        weight_decay=training.weight_decay,
        momentum=training.momentum,
        lr=space.lr,  # type: ignore[arg-type]
        dampening=0.0,
        nesterov=False,
        maximize=False,
        has_sparse_grad=False,
        fused=space.parameters[0].device.type in {"cpu", "cuda"},  # one kernel for all parameters
        foreach=False,
    )

"""Measures what an update costs a client, by training one for a few rounds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kafal_pipeline.update.base import ClientUpdate, LocalOutcome, State, StepView, Update

ROUNDS, BATCH, PIXELS, WIDTH, CLASSES = 3, 8, 2, 3, 3
RATE = 0.1


@dataclass(frozen=True)
class Cost:
    """Of one client in a round after its first ones.

    Attributes
    ----------
    forwards, backwards
        Of a batch, in one step, by all networks together.
    corrected
        Whether something is added to every gradient.
    up, down
        What the client sends and is sent in a round, in models.
    kept
        What it keeps until its next round beside its momentum, in models.
    """

    forwards: int
    backwards: int
    corrected: bool
    up: float
    down: float
    kept: float


class Probe(nn.Module):
    """A network that counts its forwards, and the backwards through them."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(PIXELS * PIXELS, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.forwards = self.backwards = 0

    def features(self, images: Tensor) -> Tensor:
        """Return the features, and take note of it."""
        self.forwards += 1
        out = self.trunk(images.flatten(1))
        if out.requires_grad:
            out.register_hook(self._note)
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.features(images))

    def state(self) -> State:
        """Return a copy of the parameters."""
        return {name: tensor.detach().clone() for name, tensor in self.named_parameters()}

    def copied(self, trained: bool = False) -> Probe:
        """Return a copy that has counted nothing, with gradients if it is to be trained."""
        other = copy.deepcopy(self).requires_grad_(trained)
        other.forwards = other.backwards = 0
        return other

    def _note(self, _gradient: Tensor) -> None:
        self.backwards += 1


def cost_of(update: Update) -> Cost:
    """Return what an update costs, once what it keeps from round to round is there."""
    costs, model, previous = [], Probe(), None
    kept: State = {}
    server: State = {}
    for round_ in range(ROUNDS):
        broadcast, student = model.state(), model.copied(trained=True)
        teacher = model.copied() if update.uses_teacher(round_) else None
        correction = update.correction(kept, server)
        sums = _train(update, StepView(student, teacher, *_batch(update), round_, torch.Generator(), previous))
        kept, message = update.finish(LocalOutcome(broadcast, student.state(), kept, server, RATE, sums))
        networks = [network for network in (student, teacher, previous) if network is not None]
        costs.append(
            Cost(
                sum(network.forwards for network in networks),
                sum(network.backwards for network in networks),
                correction is not None and bool(correction.pull or correction.shift),
                up=1 + _models(message),
                down=1 + _models(server),
                kept=update.uses_previous() + _models(kept),
            )
        )
        sent = ClientUpdate(student.state(), BATCH, RATE, frozenset(broadcast), message)
        state, server = update.aggregate(broadcast, server, [sent], 1)
        model.load_state_dict(state)
        previous = student.copied() if update.uses_previous() else None
    return costs[-1]


def _batch(update: Update) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return images, labels, unlabelled images if the update reads any, and the numbers of labels of each class."""
    generator = torch.Generator().manual_seed(0)
    images, unlabelled = torch.rand((2, BATCH, 1, PIXELS, PIXELS), generator=generator)
    labels = torch.arange(BATCH) % 2
    none = update.unlabelled_source() == "none"
    return images, labels, None if none else unlabelled, torch.bincount(labels, minlength=CLASSES)


def _train(update: Update, step: StepView) -> State:
    """Do a step as training does it, or fit all at once; return the sums of an update that does."""
    if not update.takes_steps():
        with torch.no_grad():
            return update.fit(step.student.eval(), [step])[1]
    parameters = list(step.student.parameters())
    gradients = [torch.zeros_like(parameter) for parameter in parameters]
    for term in update.loss_terms(step):
        more = torch.autograd.grad(term, parameters, materialize_grads=True)
        gradients = [first + second for first, second in zip(gradients, more, strict=True)]
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(RATE * gradient)
    return {}


def _models(state: Mapping[str, Tensor]) -> float:
    """Return the size of a state in models."""
    return sum(tensor.numel() for tensor in state.values()) / sum(tensor.numel() for tensor in Probe().parameters())

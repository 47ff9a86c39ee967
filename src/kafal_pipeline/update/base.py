"""What an update is given; every update's file documents only what is its own.

An update is a dataclass whose fields are its options. `client_loss` is called once a step and returns the scalar to
minimise; it runs the student's forwards itself, since their order and number are part of a method (each one moves the
batch-norm statistics). `aggregate` joins the participants' models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
"""A model's parameters and buffers by name."""


@dataclass
class StepView:
    """One step of one client.

    Attributes
    ----------
    student
        The client's model, in training mode.
    teacher
        The global model as broadcast at the start of this round, without gradients; None unless the update uses one.
    images, labels
        The labelled batch, augmented and normalised: ``(b, C, H, W)`` float32, ``(b,)`` int64.
    unlabelled
        The unlabelled batch, ``(u, C, H, W)``; None if the client has none left or the update asks for none.
    label_counts
        The client's labelled samples of each class, ``(C,)`` int64.
    round
        Round within the cycle, from 0.
    generator
        The only source of randomness.
    """

    student: nn.Module
    teacher: nn.Module | None
    images: Tensor
    labels: Tensor
    unlabelled: Tensor | None
    label_counts: Tensor
    round: int
    generator: torch.Generator


class Update(Protocol):
    """A federated update; see the module's text."""

    def unlabelled_source(self) -> Literal["none", "initial", "current"]:
        """Where unlabelled batches come from: nowhere, the pool of the trial's start, or what is unlabelled now."""
        ...

    def uses_teacher(self, round_: int) -> bool:
        """Whether `client_loss` reads the teacher in this round."""
        ...

    def client_loss(self, step: StepView) -> Tensor:
        """Return the loss of one step, a scalar."""
        ...

    def aggregate(self, global_state: State, results: Sequence[tuple[State, float]]) -> State:
        """Return the next global model from the participants' models and weights."""
        ...


def weighted_average(
    global_state: Mapping[str, Tensor], results: Sequence[tuple[Mapping[str, Tensor], float]]
) -> State:
    """Average models: parameters and batch-norm statistics by weight; integer buffers stay the global model's.

    Parameters
    ----------
    global_state
        The model that was broadcast.
    results
        A state and a weight (number of labels) for each participant.

    Returns
    -------
    State
        New tensors; a copy of `global_state` if no participant has a positive weight. Sums are taken in float64 and in
        the participants' order, so that equal models average to themselves.
    """
    total = sum(weight for _, weight in results)
    if total <= 0:
        return {name: tensor.clone() for name, tensor in global_state.items()}
    averaged = {}
    for name, tensor in global_state.items():
        if not tensor.is_floating_point():
            averaged[name] = tensor.clone()  # a counter of batches has no mean; dividing it breaks its type
            continue
        mean = torch.zeros_like(tensor, dtype=torch.float64)
        for state, weight in results:
            mean += state[name].double() * (weight / total)
        averaged[name] = mean.to(tensor.dtype)
    return averaged

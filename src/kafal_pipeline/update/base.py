"""The interface of a federated update: its inputs and its methods. An update's own file documents only its own.

An update is a dataclass that derives from `Update`; its fields are its options. In every round each participant

1. begins with the broadcast model,
2. minimises `client_loss`, once a step; to each gradient is added what `correction` says (or, in an update that does
   not take steps, is trained by `fit`),
3. closes with `finish`: what it keeps for its next round, and what it sends with its model,

and then the server calls `aggregate`. What clients and the server keep are states, tensors by name, empty at a cycle's
start: like the clients' momentum they restart with every cycle, since the labels change and, with ``between_cycles:
fresh``, the model too. They survive rounds in which a client does not take part.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

State = dict[str, Tensor]  # tensors by name: a model's parameters and buffers, or what an update keeps


@dataclass
class StepView:
    """One step of one client.

    - `student`: the client's model, in training mode.
    - `teacher`: the global model as broadcast at the start of this round, without gradients; None unless the update
      uses one.
    - `images`, `labels`: the labelled batch, augmented and normalised: ``(b, C, H, W)`` float32, ``(b,)`` int64.
    - `unlabelled`: the unlabelled batch, ``(u, C, H, W)``; None if the client has none left or the update asks for
      none.
    - `label_counts`: the client's labelled samples of each class, ``(C,)`` int64.
    - `round`: round within the cycle, from 0.
    - `generator`: the only source of randomness; batches and augmentation come from others.
    - `previous`: the client's own model after its last training in this cycle, without gradients; None at its first, or
      unless the update uses one.
    """

    student: nn.Module
    teacher: nn.Module | None
    images: Tensor
    labels: Tensor
    unlabelled: Tensor | None
    label_counts: Tensor
    round: int
    generator: torch.Generator
    previous: nn.Module | None = None


@dataclass(frozen=True)
class Correction:
    """What is added to every gradient of a round: ``pull * (w - w_broadcast) + shift``.

    Where batch norms stay local (FedBN), a client's own are pulled towards themselves as they were when the round
    began, and are not shifted.

    `shift`: one tensor for each parameter's name, but for batch norms that stay local. Other names are not read.
    """

    pull: float = 0.0
    shift: State | None = None


@dataclass(frozen=True)
class LocalOutcome:
    """A client's training in one round, seen from its end.

    - `broadcast`, `trained`: the parameters, without buffers and without batch norms that stay local, before and after.
    - `client`, `server`: what the client kept, and what the server broadcast with the model.
    - `travel`: how far a constant gradient of 1 would have moved every parameter: the sum over steps of the learning
      rate, each times the sum of momentum's weights. Without momentum it is (number of steps) x (learning rate).
    - `sums`: what `Update.fit` returned; empty where clients train by steps.
    """

    broadcast: State
    trained: State
    client: State
    server: State
    travel: float
    sums: State = field(default_factory=dict)


@dataclass(frozen=True)
class ClientUpdate:
    """What one participant sends to the server: its model, number of labels and the `message` of `Update.finish`.

    `travel`: see `LocalOutcome`. `parameters`: which entries of the state are parameters of everybody's, those of
    `LocalOutcome`; the others are buffers, or batch norms that stay local.
    """

    state: Mapping[str, Tensor]
    labels: float
    travel: float
    parameters: frozenset[str]
    message: Mapping[str, Tensor] = field(default_factory=dict)


class Update(ABC):
    """A federated update; the module's text says when its methods are called."""

    def unlabelled_source(self) -> Literal["none", "initial", "current"]:
        """Where unlabelled batches come from: nowhere, the pool of the trial's start, or what is unlabelled now."""
        return "none"

    def uses_teacher(self, round_: int) -> bool:
        """Whether `client_loss` reads the teacher in this round."""
        return False

    def uses_previous(self) -> bool:
        """Whether `client_loss` reads the client's previous model."""
        return False

    @abstractmethod
    def client_loss(self, step: StepView) -> Tensor:
        """Return the loss of one step, a scalar; it may depend on the round, but on no tensor's value in Python.

        It runs the student's forwards itself, since each one moves the batch-norm statistics.
        """

    def loss_terms(self, step: StepView) -> Iterator[Tensor]:
        """Yield scalars whose sum is the loss; one's activations are freed before the next is asked for."""
        yield self.client_loss(step)

    def takes_steps(self) -> bool:
        """Whether clients train by steps; if not, `fit` trains them."""
        return True

    def fit(self, student: nn.Module, batches: Iterable[StepView]) -> tuple[float, State]:
        """Train the student in closed form; return its mean loss, and what `finish` gets as `LocalOutcome.sums`.

        `student`: in evaluation mode, without gradients. `batches`: all labelled images, once and as they are.
        """
        raise NotImplementedError

    def phase(self, round_: int) -> Hashable:
        """Return what is equal for rounds in which `client_loss` does the same arithmetic: a GPU replays its steps."""
        return round_

    def correction(self, client: State, server: State) -> Correction | None:
        """Return what is added to every gradient of this round; None if nothing.

        `client`, `server`: what this client kept from its last round, and what the server sent; both may be empty.
        """
        return None

    def finish(self, outcome: LocalOutcome) -> tuple[State, State]:
        """Return what the client keeps for its next round, and the message that goes to the server with its model."""
        return {}, {}

    def aggregate(
        self, global_state: State, server: State, updates: Sequence[ClientUpdate], clients: int
    ) -> tuple[State, State]:
        """Return the next global model, and what the server keeps and sends with it.

        - `global_state`, `server`: the model that was broadcast, and what went with it.
        - `updates`: the participants'. Each one's tensors are read from where they lie when they are looked into: go
          through the participants one by one, and keep none, and their models are never in memory together.
        - `clients`: number of clients in the federation, participants or not.
        """
        weights = [update.labels for update in updates]
        return weighted_average(global_state, (update.state for update in updates), weights), server


def weighted_average(
    global_state: Mapping[str, Tensor], states: Iterable[Mapping[str, Tensor]], weights: Sequence[float]
) -> State:
    """Average `states`, gone through once, by weight; integer buffers stay the global model's.

    Returns new tensors; a copy of `global_state` if no participant has a positive weight. Sums are taken in float64 and
    in the participants' order, so that equal models average to themselves.
    """
    total = sum(weights)
    averaged = {name: tensor.clone() for name, tensor in global_state.items()}
    if total <= 0:
        return averaged
    # A counter of batches has no mean; dividing it breaks its type.
    means = {
        name: torch.zeros_like(tensor, dtype=torch.float64)
        for name, tensor in global_state.items()
        if tensor.is_floating_point()
    }
    for state, weight in zip(states, weights, strict=True):
        for name in means:
            means[name] += state[name].double() * (weight / total)
    return averaged | {name: mean.to(global_state[name].dtype) for name, mean in means.items()}

"""SCAFFOLD: corrects each gradient by the difference between the client's and the average gradient."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kafal_pipeline.update.base import ClientUpdate, Correction, LocalOutcome, State
from kafal_pipeline.update.fedavg import FedAvg


@dataclass(frozen=True)
class Scaffold(FedAvg):
    """FedAvg with control variates: every gradient g of client k becomes ``g - c_k + c``.

    Controls begin at 0 and are of the parameters only; batch norms that stay local (FedBN) have none. After a client's
    K steps (option II of the paper)::

        c_k' = c_k - c + (w_broadcast - w_k) / (K lr)      c' = c + sum over participants of (c_k' - c_k) / clients

    With momentum, a constant gradient moves the parameters farther than ``K lr``; that distance stands in its place, so
    that controls stay gradients. (Published code divides by ``K lr`` with momentum 0.9 too: controls ten times too
    large.) Models are averaged by labels, as in all updates here, and controls equally, as in the paper. A client sends
    its model and the change of its control, and is sent the model and c: nearly twice FedAvg's bytes.

    Source: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, alg. 1.
    """

    def correction(self, client: State, server: State) -> Correction | None:
        if not server and not client:
            return None
        names = {**server, **client}  # a control that is not there yet is 0
        return Correction(shift={name: server.get(name, 0) - client.get(name, 0) for name in names})  # type: ignore[misc]

    def finish(self, outcome: LocalOutcome) -> tuple[State, State]:
        change = {
            name: (before - outcome.trained[name]) / outcome.travel - outcome.server.get(name, torch.zeros_like(before))
            for name, before in outcome.broadcast.items()
        }
        kept = {name: tensor + outcome.client.get(name, 0) for name, tensor in change.items()}
        return kept, change

    def aggregate(
        self, global_state: State, server: State, updates: Sequence[ClientUpdate], clients: int
    ) -> tuple[State, State]:
        model, _ = super().aggregate(global_state, server, updates, clients)
        control = dict(server)
        for update in updates:
            for name, tensor in update.message.items():
                control[name] = control.get(name, torch.zeros_like(tensor)) + tensor / clients
        return model, control

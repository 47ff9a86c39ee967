"""FedNova: clients that take more steps do not weigh more."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kafal_pipeline.update.base import ClientUpdate, State
from kafal_pipeline.update.fedavg import FedAvg


@dataclass(frozen=True)
class FedNova(FedAvg):
    """FedAvg of normalised changes: ``w' = w - (sum_k p_k t_k) sum_k p_k (w - w_k) / t_k``.

    p_k are the participants' shares of the labels and t_k their travels, how far a constant gradient of 1 would have
    moved each (`kafal_pipeline.update.base.LocalOutcome`; the paper's ``lr |a|_1``, momentum included). Where all
    travel equally far this is FedAvg. Buffers, and batch norms that stay local, are averaged by labels.

    In federated active learning clients hold different numbers of labels, so that equal epochs are different numbers of
    steps; FedAvg then minimises an objective in which the well-labelled clients count twice, by weight and by distance.
    FedNova removes exactly that, with no parameter to choose and no state to lose.

    Source: Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS
    2020, eqs. 9 and 10.
    """

    def aggregate(
        self, global_state: State, server: State, updates: Sequence[ClientUpdate], clients: int
    ) -> tuple[State, State]:
        model, server = super().aggregate(global_state, server, updates, clients)
        total = sum(update.labels for update in updates)
        if total <= 0:
            return model, server
        mean_travel = sum(update.labels * update.travel for update in updates) / total
        names = frozenset.intersection(*(update.parameters for update in updates))
        starts = {name: global_state[name].double() for name in model if name in names}
        changes = {name: torch.zeros_like(start) for name, start in starts.items()}
        for update in updates:
            share = update.labels / total * mean_travel / update.travel
            for name in changes:
                changes[name] += share * (update.state[name].double() - starts[name])
        moved = {name: (start + changes[name]).to(global_state[name].dtype) for name, start in starts.items()}
        return model | moved, server

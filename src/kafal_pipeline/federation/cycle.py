"""Trains the global model for one cycle, as the server does: rounds of local training and aggregation."""

import time
from collections.abc import Callable

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.users_code import blamed
from kafal_pipeline.config import Config
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.federation.between_rounds.lazy import RoundUpdates
from kafal_pipeline.federation.clients import Clients
from kafal_pipeline.federation.failures import check_aggregated, settle, settle_missing
from kafal_pipeline.federation.participants import participants
from kafal_pipeline.models.state import State
from kafal_pipeline.update.base import Update
from kafal_pipeline.update.checks import checked_aggregate
from kafal_pipeline.update.factory import make_update

OnRound = Callable[[CycleState], None]  # called after every round


def train_cycle(
    config: Config, clients: Clients, global_state: State, cycle: int, on_round: OnRound | None = None
) -> CycleState:
    """Train the global model for one cycle, from the model that the first round broadcasts.

    Raises `UserError` if no client has a label, training goes wrong (`kafal_pipeline.federation.failures`), or the disk
    is full.
    """
    if not any(clients.labels.values()):
        raise UserError("budget.initial: no client has a labelled sample to train on; raise it.")
    update = make_update(config.update)
    with clients.training(cycle, global_state) as state:
        begin = time.perf_counter() - state.seconds
        while state.round < config.federation.rounds:
            _train_round(state, config, clients, update)
            state.seconds = time.perf_counter() - begin
            clients.save(state)
            if on_round is not None:
                on_round(state)
    return state


def _train_round(state: CycleState, config: Config, clients: Clients, update: Update) -> None:
    """Broadcast, train the participants, aggregate; `state` then stands after one more round."""
    labels, cycle, round_ = clients.labels, state.cycle, state.round
    chosen = participants(list(labels), config.federation, seed=config.seed, cycle=cycle, round_=round_)
    training = [client for client in chosen if labels[client]]
    # Replies come in any order; what is made of them goes by the clients' numbers.
    replies = {reply.client: reply for reply in clients.train(state, training)}
    settle_missing(replies, config, cycle, round_)
    there = [client for client in training if not replies[client].missing]
    failed = {client: problem for client in there if (problem := replies[client].problem) is not None}
    settle(failed, there, config, cycle, round_)
    state.rows += [replies[client].row for client in training]
    sent = [make for client in training if (make := replies[client].update) is not None]
    with blamed(f"cycle {cycle}, round {round_}, all clients", update=update):
        aggregated = update.aggregate(state.global_state, state.server, RoundUpdates(sent), len(labels))
        model, server = checked_aggregate(aggregated, state.global_state)
    check_aggregated(model, server, config, cycle, round_)
    state.global_state, state.server = model, server
    state.round += 1

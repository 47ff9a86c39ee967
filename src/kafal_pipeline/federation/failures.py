"""Handles clients whose training went wrong: a value that is not finite never reaches the global model."""

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config
from kafal_pipeline.federation.clients import Reply
from kafal_pipeline.federation.workers.tasks import TrainResult
from kafal_pipeline.models.state import Arrays, State

logger = logging.getLogger(__name__)

NAMED = 10  # clients that a message names; of more it gives the number


def problem_of(result: TrainResult) -> str | None:
    """Return what of a trained client is not finite, as a part of a sentence; None if all of it is."""
    parts = {
        "model": result.model,
        "momentum": result.site.state.momentum or {},
        "update's state": result.site.state.kept,
        "message": result.message,
    }
    wrong = next((name for name, arrays in parts.items() if not _finite(arrays)), None)
    if wrong is None and not math.isfinite(result.loss):
        wrong = "loss"
    return None if wrong is None else f"the {wrong} is no longer finite (mean loss {result.loss:.4g})"


def settle(failed: Mapping[int, str], training: Sequence[int], config: Config, cycle: int, round_: int) -> None:
    """Do what ``federation.on_client_failure`` says about the clients of a round that failed.

    `failed` is what `problem_of` said, by client; `training` are the participants with labels, those that failed too.
    Raises `UserError` if a client failed and the policy is ``fail``, or if no client is left.
    """
    place, remedy = f"cycle {cycle}, round {round_}", f"Lower training.lr (found {config.training.lr})"
    if not training:
        raise UserError(
            f"{place}: none of the clients that take part has a labelled sample to train on. Raise budget.initial, or "
            f"federation.participation (found {config.federation.participation})."
        )
    if not failed:
        return
    first = min(failed)
    if config.federation.on_client_failure == "fail":
        raise UserError(
            f"{place}, client {first}: {failed[first]}. {remedy}, or leave such clients out of the round with "
            "federation.on_client_failure=skip."
        )
    if len(failed) == len(training):
        names = f"{len(failed)} clients" if len(failed) > NAMED else f"client {', '.join(map(str, sorted(failed)))}"
        raise UserError(
            f"{place}: every client that trained failed ({names}), so there is nothing to aggregate; of client "
            f"{first} {failed[first]}. {remedy}."
        )
    for client in sorted(failed):
        logger.warning(
            "%s, client %d: %s; it is left out of this round and keeps what it had before "
            "(federation.on_client_failure: skip).",
            *(place, client, failed[client]),
        )


def settle_missing(replies: Mapping[int, Reply], config: Config, cycle: int, round_: int) -> None:
    """Do what ``federation.missing_sites`` says about the sites that did not answer in a round.

    Raises
    ------
    UserError
        If more are missing than may be, or all of them.
    """
    missing = {client: reply.problem for client, reply in sorted(replies.items()) if reply.missing}
    if not missing:
        return
    place = f"cycle {cycle}, round {round_}"
    told = "; ".join(f"client {client}: {problem}" for client, problem in missing.items())
    allowed = config.federation.missing_sites
    if len(missing) > allowed or len(missing) == len(replies):
        raise UserError(
            f"{place}: {len(missing)} of {len(replies)} sites that take part are missing ({told}). Allowed are "
            f"{allowed} (federation.missing_sites), and at least one must be left."
        )
    logger.warning("%s: the round goes on without %d of %d sites (%s)", place, len(missing), len(replies), told)


def check_aggregated(model: State, server: State, config: Config, cycle: int, round_: int) -> None:
    """Raise UserError if what the server made of finite clients is not finite: sums and ratios may overflow."""
    tensors = {**server, **model}
    wrong = next((name for name, t in tensors.items() if t.is_floating_point() and not bool(t.isfinite().all())), None)
    if wrong is not None:
        raise UserError(
            f"cycle {cycle}, round {round_}: every client is finite, but what {config.update.label} aggregates of them "
            f"is not ({wrong}). Lower training.lr (found {config.training.lr})."
        )


def _finite(arrays: Arrays) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays.values() if array.dtype.kind == "f")  # type: ignore[type-var]

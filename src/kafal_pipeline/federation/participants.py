"""Chooses the clients that train in a round."""

import math
from collections.abc import Sequence

from kafal_pipeline.common.randomness import Purpose, numpy_generator
from kafal_pipeline.config import FederationConfig


def participants(
    clients: Sequence[int], federation: FederationConfig, *, seed: int, cycle: int, round_: int
) -> list[int]:
    """Draw the clients of one round, ascending; all in a cycle's last if `federation.all_clients_last_round`.

    Their number is `federation.participation` of all, rounded down or up, at least one.
    """
    if federation.all_clients_last_round and round_ == federation.rounds - 1:
        return sorted(clients)
    # 0.8 * 10 is 8.000000000000002 in other orders of operation: round to what was meant first.
    exact = round(federation.participation * len(clients), 9)
    count = math.floor(exact) if federation.participants_rounding == "floor" else math.ceil(exact)
    rng = numpy_generator(seed, Purpose.PARTICIPANTS, cycle, round_)
    return sorted(int(client) for client in rng.permutation(sorted(clients))[: max(count, 1)])

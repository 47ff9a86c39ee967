"""Rows of the table ``rounds``, from what sites answer."""

from __future__ import annotations

import math
from typing import cast

from kafal_pipeline.config import Config
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState, Row
from kafal_pipeline.models.state import size_in_bytes
from kafal_pipeline.sites.packets import Packet
from kafal_pipeline.training.local import learning_rate


def row_of(
    config: Config, state: CycleState, client: int, labels: int, answer: Packet | None, *, failed: bool = False
) -> Row:
    """Return the row of the table ``rounds``; of a site that did not answer, only what was sent to it is known."""
    values = {} if answer is None else cast(dict[str, float], answer.values)
    groups = () if answer is None or failed else ("model", "message")
    up = sum(array.nbytes for group in groups for array in answer.arrays.get(group, {}).values()) if answer else 0
    epochs = int(values.get("epochs", 0))
    return {
        "cycle": state.cycle,
        "round": state.round,
        "client": client,
        "labels": labels,
        "loss": float(values.get("loss", math.nan)),
        "lr": learning_rate(config.training, epochs),
        "epochs": epochs,
        "steps": int(values.get("steps", 0)),
        "bytes_down": size_in_bytes(state.global_state) + size_in_bytes(state.server) - int(values.get("own", 0)),
        "bytes_up": up,
        "seconds": float(values.get("seconds", math.nan)),
        "failed": failed or answer is None,
    }

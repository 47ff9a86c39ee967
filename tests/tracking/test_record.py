from __future__ import annotations

import math

import pandas as pd
import pytest

from kafal_pipeline.tracking.record import record_rounds


class Notes:
    def __init__(self):
        self.noted = []

    def metrics(self, values, step, durable=False):
        self.noted.append((step, values))


def test_failed_clients_are_counted_and_in_no_mean():
    rows = [(1, 0, 0, 1.0, False), (1, 0, 1, 3.0, False), (1, 1, 0, 2.0, False), (1, 1, 1, math.nan, True)]
    rounds = pd.DataFrame(rows, columns=["cycle", "round", "client", "loss", "failed"])
    notes = Notes()
    record_rounds(notes, rounds, 2)
    assert notes.noted == [(2, {"round/loss": 2.0}), (3, {"round/loss": 2.0, "round/skipped_clients": 1.0})]


def test_a_loss_that_is_finite_is_in_no_mean_either_where_the_client_failed():
    rows = [(0, 0, 0, 1.0, 0.1, False), (0, 0, 1, 9.0, 0.3, True)]
    rounds = pd.DataFrame(rows, columns=["cycle", "round", "client", "loss", "lr", "failed"])
    notes = Notes()
    record_rounds(notes, rounds, 5)
    ((_, values),) = notes.noted
    assert values == pytest.approx({"round/loss": 1.0, "round/lr": 0.1, "round/skipped_clients": 1.0})

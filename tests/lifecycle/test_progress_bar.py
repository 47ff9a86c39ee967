from __future__ import annotations

import logging
import math
import time

from kafal_pipeline.config import resolve
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.lifecycle.progress_bar import ProgressBar


def test_the_loss_that_is_shown_is_that_of_the_clients_that_did_not_fail(caplog, monkeypatch):
    shown = ProgressBar()
    monkeypatch.setattr(shown, "_shows", lambda *_: False)  # as where there is no terminal
    losses = [(0, 1.0, False), (1, 2.0, False), (1, math.nan, True), (1, 4.0, False)]
    rows = [{"round": round_, "loss": loss, "failed": failed} for round_, loss, failed in losses]
    with caplog.at_level(logging.INFO):
        shown.on_round(resolve({}))(CycleState(0, 2, {}, rows=rows))
    assert caplog.messages == ["cycle 0/5, round 2/10, loss 3.0000"]


def test_whose_query_is_waited_for_is_said_where_it_takes_long(caplog, monkeypatch):
    monkeypatch.setattr("kafal_pipeline.lifecycle.progress_bar.LOG_EVERY_SECONDS", 0.05)
    shown = ProgressBar()
    monkeypatch.setattr(shown, "_shows", lambda *_: False)
    show = shown.on_wait(resolve({}), 3)
    with caplog.at_level(logging.INFO):
        show([0, 1])
        show([1])
        time.sleep(0.3)
        show([])
        show([2])
        shown.close()
        time.sleep(0.2)
    assert caplog.messages == ["cycle 3/5, waiting for the query of client 1"]

from __future__ import annotations

import math

import pandas as pd
import pytest

from kafal_pipeline.lifecycle.current_run import CurrentRun
from kafal_pipeline.lifecycle.recorder import Recorder
from kafal_pipeline.tracking.record import MOST_PARTS, record_parts, record_rounds


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
    assert notes.noted == [
        (2, {"train_round_loss": 2.0}),
        (3, {"train_round_loss": 2.0, "train_round_skipped_clients": 1.0}),
    ]


def test_a_loss_that_is_finite_is_in_no_mean_either_where_the_client_failed():
    rows = [(0, 0, 0, 1.0, 0.1, False), (0, 0, 1, 9.0, 0.3, True)]
    rounds = pd.DataFrame(rows, columns=["cycle", "round", "client", "loss", "lr", "failed"])
    notes = Notes()
    record_rounds(notes, rounds, 5)
    ((_, values),) = notes.noted
    assert values == pytest.approx({"train_round_loss": 1.0, "train_round_lr": 0.1, "train_round_skipped_clients": 1.0})


def recorded(names):
    notes = Notes()
    table = pd.DataFrame({"name": "text", "auroc": 0.5, "sensitivity": math.nan}, index=names)
    record_parts(notes, "class", table, 300)
    assert {step for step, _ in notes.noted} <= {300}
    return [key for _, values in notes.noted for key in values]


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["nevus", "melanoma (skin)"], ["nevus", "melanoma _skin_"]),
        (["a/b", "a_b"], ["0", "1"]),
        (["..", "é"], ["__", "é"]),
        (["n" * 300, "b"], ["0", "1"]),
    ],
)
def test_each_class_has_a_name_that_mlflow_allows(names, keys, store):
    found = recorded(names)
    assert found == [f"per_class_{key}_auroc" for key in keys]
    client, _, _ = store
    run = client.create_run(client.get_experiment_by_name("digits").experiment_id)
    for key in found:
        client.log_metric(run.info.run_id, key, 0.5)


def test_many_classes_are_left_to_the_table():
    assert len(recorded(range(MOST_PARTS))) == MOST_PARTS
    assert recorded(range(MOST_PARTS + 1)) == []
    assert recorded([]) == []


def test_classes_and_clients_are_recorded_at_the_last_number_of_labels():
    recorder = Recorder(CurrentRun())
    recorder._tracker, recorder._labels = Notes(), 7
    recorder.record("class_table", pd.DataFrame({"class": ["cat"], "images": [3], "auroc": [0.5]}))
    recorder.record("client_table", pd.DataFrame({"client": [2], "name": ["Bonn"], "images": [3], "accuracy": [1.0]}))
    assert recorder._tracker.noted == [(7, {"per_class_cat_auroc": 0.5}), (7, {"per_client_2_accuracy": 1.0})]

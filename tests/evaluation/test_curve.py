import io
import json

import pandas as pd
import pytest

from kafal_pipeline.config import resolve
from kafal_pipeline.evaluation import learning_curve, summary


def test_columns_stand_in_the_agreed_order(make_metrics):
    assert list(learning_curve(make_metrics()).columns) == [
        *("cycle", "labels", "labelled_fraction", "accuracy", "balanced_accuracy", "macro_f1", "aulc"),
        *("queried_entropy", "train_seconds", "query_seconds", "evaluate_seconds", "bytes_sent"),
        *("skipped_client_rounds", "accuracy_cat", "accuracy_dog"),
    ]


def test_rows_are_the_cycles_in_order_with_nan_for_what_is_absent(make_metrics):
    curve = learning_curve(make_metrics()[::-1])
    assert curve["cycle"].tolist() == [0, 1, 2]
    assert curve["labels"].tolist() == [100, 150, 200]
    assert curve["accuracy_cat"].tolist() == pytest.approx([0.25, 0.35, 0.45])
    assert curve["accuracy_dog"].isna().all()
    assert curve["query_seconds"].isna().tolist() == [True, False, False]


def test_aulc_covers_the_cycles_so_far(make_metrics):
    assert learning_curve(make_metrics())["aulc"].tolist() == pytest.approx([0.5, 0.55, 0.6])


def test_types_do_not_depend_on_what_is_absent(make_metrics):
    one, three = learning_curve(make_metrics(cycles=1)), learning_curve(make_metrics(cycles=3))
    assert one.dtypes.equals(three.dtypes)
    assert set(map(str, one.dtypes)) == {"int64", "float64"}


def test_a_curve_survives_csv(make_metrics):
    curve = learning_curve(make_metrics())
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(curve.to_csv(index=False))), curve)


def test_summary_says_what_was_run_and_what_it_reached(make_metrics):
    config = resolve({"query": {"name": "ksas", "prior_smoothing": 1}, "dataset": {"name": "mine"}, "seed": 3})
    found = summary(learning_curve(make_metrics()), config)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found.pop("cost") == {"train_seconds": 6.0, "query_seconds": 1.0}
    assert found == {
        "dataset": "mine",
        "query": "ksas_prior_smoothing-1",
        "update": "kcfu",
        "seed": 3,
        "cycles": 3,
        "labels": 200,
        "labelled_fraction": 0.2,
        "aulc": pytest.approx(0.6),
        "final_accuracy": pytest.approx(0.7),
        "final_balanced_accuracy": pytest.approx(0.6),
        "final_macro_f1": pytest.approx(0.5),
        "bytes_sent": 3000,
        "skipped_client_rounds": 0,
    }


def test_skipped_clients_are_summed_up(make_metrics):
    metrics = make_metrics()
    metrics[1]["skipped_client_rounds"], metrics[2]["skipped_client_rounds"] = 2, 1
    curve = learning_curve(metrics)
    assert curve["skipped_client_rounds"].tolist() == [0, 2, 1]  # results of earlier versions have none
    assert summary(curve, resolve({}))["skipped_client_rounds"] == 3


def test_summary_leaves_out_what_is_not_a_number(make_metrics):
    curve = learning_curve(make_metrics(cycles=1)).assign(macro_f1=float("nan"))
    found = summary(curve, resolve({}))
    json.dumps(found, allow_nan=False)
    assert "final_macro_f1" not in found
    assert found["cost"] == {"train_seconds": 2.0}

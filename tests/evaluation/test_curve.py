import io
import json

import pandas as pd
import pytest

from kafal_pipeline.config import resolve
from kafal_pipeline.evaluation import class_table, client_table, learning_curve, summary

PEOPLE = (
    *("asked", "labelled", "skipped", "unusable", "unknown_class", "conflicts", "open", "test_labels"),
    *("kappa", "seconds_per_label", "hours"),
)


def test_columns_stand_in_the_agreed_order(make_metrics):
    assert list(learning_curve(make_metrics()).columns) == [
        *("cycle", "labels", "labelled_fraction", "accuracy", "balanced_accuracy", "macro_f1", "aulc"),
        *("specificity_macro", "auroc_macro", "calibration_error"),
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


def test_what_people_did_follows_and_is_summed_up(make_metrics, make_people_metrics):
    curve, plain = learning_curve(make_people_metrics()), learning_curve(make_metrics())
    added = [name for name in curve if name not in plain]
    assert added == [f"annotation_{name}" for name in PEOPLE]
    assert list(curve)[-len(added) - 2 :] == [*added, "accuracy_cat", "accuracy_dog"]
    pd.testing.assert_frame_equal(curve.drop(columns=added), plain)
    assert curve["annotation_labelled"].tolist() == [1000, 1050, 1100]
    assert curve["annotation_kappa"].isna().tolist() == [True, False, False]
    found = summary(curve, resolve({}))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["annotation_labelled"] == 1100 and isinstance(found["annotation_labelled"], int)
    assert (found["annotation_kappa"], found["annotation_hours"]) == (0.8125, pytest.approx(0.71))
    assert found.keys() - summary(plain, resolve({})).keys() == set(added)
    untimed = summary(learning_curve(make_people_metrics(cycles=1, timed=False)), resolve({}))
    assert {"annotation_hours", "annotation_seconds_per_label", "annotation_kappa"}.isdisjoint(untimed)


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


MEASURED = {
    "specificity_macro": 0.75,
    "auroc_macro": 0.875,
    "calibration_error": 0.125,
    "per_class_specificity": [0.75, 1.0],
    "per_class_auroc": [0.875, None],
    "confusion_matrix": [[3, 1], [0, 0]],
}


def test_what_is_measured_from_probabilities_is_summed_up(make_metrics):
    metrics = [row | MEASURED for row in make_metrics(cycles=1)]
    curve = learning_curve(metrics)
    assert curve[["specificity_macro", "auroc_macro", "calibration_error"]].values.tolist() == [[0.75, 0.875, 0.125]]
    found = summary(curve, resolve({}))
    finals = {key: found[key] for key in found if key.startswith("final_")}
    assert finals == {
        **{"final_accuracy": 0.5, "final_balanced_accuracy": 0.4, "final_macro_f1": 0.3},
        **{"final_specificity_macro": 0.75, "final_auroc_macro": 0.875, "final_calibration_error": 0.125},
    }
    assert class_table(metrics[-1]).to_csv(index=False).splitlines() == [
        "class,images,sensitivity,specificity,auroc",
        "cat,4,0.25,0.75,0.875",
        "dog,0,,1.0,",
    ]


def test_results_of_an_earlier_version_leave_blanks(make_metrics):
    metrics = make_metrics(cycles=1)
    assert learning_curve(metrics)["auroc_macro"].isna().all()
    assert class_table(metrics[-1]).to_csv(index=False).splitlines() == [
        "class,images,sensitivity,specificity,auroc",
        "cat,,0.25,,",
        "dog,,,,",
    ]
    assert client_table(metrics[-1]).empty


def test_clients_with_test_images_of_their_own_have_a_row_each(make_metrics):
    row = {"client": 3, "name": "Bonn", "images": 7, "accuracy": 1.0, "balanced_accuracy": 1.0}
    row |= {"specificity_macro": None, "auroc_macro": None, "calibration_error": 0.25}
    table = client_table(make_metrics(cycles=1)[0] | {"per_client": [row]})
    assert table.to_csv(index=False).splitlines() == [
        "client,name,images,accuracy,balanced_accuracy,specificity_macro,auroc_macro,calibration_error",
        "3,Bonn,7,1.0,1.0,,,0.25",
    ]

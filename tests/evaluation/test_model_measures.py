import json
import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics
from sklearn.calibration import calibration_curve

from kafal_pipeline.evaluation import evaluate
from kafal_pipeline.evaluation.model_measures import BINS, auroc, calibration_error

SCALARS = ("accuracy", "balanced_accuracy", "specificity_macro", "auroc_macro", "calibration_error")


def drawn(images, classes, seed=0, hint=1.5):
    """Return labels, and logits that are rounded so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)).round(1)
    logits[np.arange(images), labels] += hint
    return labels, logits.astype(np.float32)


def by_hand(labels, logits, index):
    """Return sensitivity, specificity and AUROC of a class, image by image and pair by pair."""
    own, predicted = labels == index, logits.argmax(1) == index
    chances = softmax(logits.astype(np.float64), axis=1)[:, index]
    pairs = [(a > b) + (a == b) / 2 for a in chances[own] for b in chances[~own]]
    return predicted[own].mean(), (~predicted[~own]).mean(), np.mean(pairs)


@pytest.mark.parametrize(("images", "classes"), [(60, 2), (90, 4), (200, 7)])
def test_measures_by_class_are_those_made_by_hand_and_by_scikit_learn(images, classes):
    labels, logits = drawn(images, classes)
    found = evaluate(labels, logits)
    by_class = [by_hand(labels, logits, index) for index in range(classes)]
    for place, key in enumerate(("per_class_accuracy", "per_class_specificity", "per_class_auroc")):
        assert found[key] == pytest.approx([values[place] for values in by_class], abs=1e-12), key
    assert found["auroc_macro"] == pytest.approx(np.mean([values[2] for values in by_class]))
    assert found["specificity_macro"] == pytest.approx(np.mean([values[1] for values in by_class]))
    assert found["balanced_accuracy"] == pytest.approx(np.mean([values[0] for values in by_class]))
    chances, predictions = softmax(logits.astype(np.float64), axis=1), logits.argmax(1)
    assert found["confusion_matrix"] == metrics.confusion_matrix(labels, predictions).tolist()
    of_classes = metrics.multilabel_confusion_matrix(labels, predictions)
    assert found["per_class_specificity"] == pytest.approx([m[0, 0] / m[0].sum() for m in of_classes])
    asked = chances[:, 1] if classes == 2 else chances
    assert found["auroc_macro"] == pytest.approx(metrics.roc_auc_score(labels, asked, multi_class="ovr"))


def test_two_classes_are_each_other_s_mirror():
    labels, logits = drawn(80, 2)
    found = evaluate(labels, logits)
    assert found["per_class_specificity"] == found["per_class_accuracy"][::-1]
    assert found["per_class_auroc"][0] == pytest.approx(found["per_class_auroc"][1])


def test_calibration_error_is_that_made_by_hand_and_from_scikit_learn_s_curve():
    rng = np.random.default_rng(0)
    confidence = np.append(rng.uniform(0.2, 1, 500), [0.2, 0.4, 1.0])  # also on the edges
    correct = rng.random(503) < confidence**2
    by_bin = {}
    for right, sure in zip(correct, confidence, strict=True):
        by_bin.setdefault(math.ceil(sure * BINS - 1e-9), []).append((right, sure))
    gaps = [len(pairs) * abs(np.mean(pairs, axis=0) @ [1, -1]) for pairs in by_bin.values()]
    assert calibration_error(correct, confidence) == pytest.approx(sum(gaps) / 503)
    true, predicted = calibration_curve(correct, confidence, n_bins=BINS)
    sizes = [len(by_bin[number]) for number in sorted(by_bin)]
    assert calibration_error(correct, confidence) == pytest.approx(np.average(abs(true - predicted), weights=sizes))


def test_probabilities_need_neither_float64_nor_a_sum_of_exactly_1():
    labels, logits = drawn(300, 5)
    chances = softmax(logits, axis=1)
    assert chances.dtype == np.float32
    assert (chances.sum(axis=1) != 1).any()
    np.testing.assert_allclose(auroc(labels, chances), evaluate(labels, logits)["per_class_auroc"], atol=1e-3)
    found = calibration_error(logits.argmax(1) == labels, chances.max(axis=1))
    assert found == pytest.approx(evaluate(labels, logits)["calibration_error"], abs=1e-5)


def test_confident_predictions_are_no_ties():
    # In float32 the probabilities of the second class would all be 1.
    logits = np.array([[0, 20], [0, 22], [0, 24], [0, 26]], dtype=np.float32)
    assert evaluate(np.array([0, 0, 1, 1]), logits)["per_class_auroc"] == [1, 1]


def test_a_class_without_images_has_neither_sensitivity_nor_auroc_and_is_in_no_mean():
    labels, logits = drawn(60, 3)
    labels = np.where(labels == 2, 1, labels)
    found = evaluate(labels, logits)
    assert found["per_class_accuracy"][2] is None
    assert found["per_class_auroc"][2] is None
    assert found["per_class_specificity"][2] == pytest.approx((logits.argmax(1) != 2).mean())
    assert found["auroc_macro"] == pytest.approx(np.mean(found["per_class_auroc"][:2]))
    assert found["specificity_macro"] == pytest.approx(np.mean(found["per_class_specificity"][:2]))
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("images", [1, 5])
def test_images_of_one_class_have_a_sensitivity_alone(images):
    found = evaluate(np.ones(images, dtype=np.int64), np.tile([0.0, 1.0, 0.5], (images, 1)))
    assert (found["accuracy"], found["per_class_accuracy"]) == (1, [None, 1, None])
    assert found["auroc_macro"] is found["specificity_macro"] is None
    assert found["per_class_auroc"] == [None] * 3
    assert found["per_class_specificity"] == [1, None, 1]
    assert found["calibration_error"] == pytest.approx(1 - softmax([0, 1, 0.5])[1])
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_logits_that_are_not_finite_leave_what_needs_no_probabilities(value):
    labels, logits = drawn(40, 3)
    logits[3] = value
    found = evaluate(labels, logits)
    assert found["accuracy"] == (logits.argmax(1) == labels).mean()
    assert found["auroc_macro"] is found["calibration_error"] is None
    json.dumps(found, allow_nan=False)


def test_each_client_is_measured_by_its_own_images():
    labels, logits = drawn(90, 3)
    clients = np.repeat([0, 2, 3], [60, 29, 1])
    labels[60:89] = 1  # client 2 has one class, client 3 one image, client 1 none
    found = evaluate(labels, logits, clients, ("Aachen", "Bonn", "Celle", "Düren"))
    assert [(row["client"], row["name"], row["images"]) for row in found["per_client"]] == [
        *((0, "Aachen", 60), (2, "Celle", 29), (3, "Düren", 1))
    ]
    for row in found["per_client"]:
        alone = evaluate(labels[clients == row["client"]], logits[clients == row["client"]])
        assert {key: row[key] for key in SCALARS} == {key: alone[key] for key in SCALARS}
    assert found["per_client"][1]["auroc_macro"] is None
    everyone = evaluate(labels, logits)
    assert everyone == {**found, "per_client": []}
    assert [row["name"] for row in evaluate(labels, logits, clients)["per_client"]] == ["0", "2", "3"]
    json.dumps(found, allow_nan=False)

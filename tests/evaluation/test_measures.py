import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from kafal_pipeline.evaluation import aulc, classification_measures, confusion_matrix, entropy

CLASSES = 5


@st.composite
def labels_and_predictions(draw):
    index = st.integers(0, CLASSES - 1)
    pairs = draw(st.lists(st.tuples(index, index), min_size=1, max_size=40))
    labels, predictions = zip(*pairs, strict=True)
    return np.array(labels), np.array(predictions)


@st.composite
def curves(draw):
    steps = draw(st.lists(st.floats(0, 1), min_size=1, max_size=10))
    accuracy = draw(st.lists(st.floats(0, 1), min_size=len(steps), max_size=len(steps)))
    return np.cumsum(steps) / len(steps), np.array(accuracy)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
@given(labels_and_predictions())
@settings(deadline=None)
def test_measures_equal_those_of_scikit_learn(drawn):
    labels, predictions = drawn
    confusion = confusion_matrix(labels, predictions, CLASSES)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predictions, labels=range(CLASSES)))
    measured = classification_measures(confusion)
    assert measured["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predictions))
    assert measured["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predictions))
    assert measured["macro_f1"] == pytest.approx(metrics.f1_score(labels, predictions, average="macro"))
    for index, recall in enumerate(measured["per_class_accuracy"]):
        of_class = labels == index
        assert (recall is None) == (not of_class.any())
        assert recall is None or recall == pytest.approx((predictions[of_class] == index).mean())


def test_confusion_matrix_is_int64_and_as_wide_as_the_classes():
    confusion = confusion_matrix(np.array([2], dtype=np.uint8), [0], num_classes=4)
    assert confusion.dtype == np.int64
    assert confusion.shape == (4, 4)
    assert confusion[2, 0] == confusion.sum() == 1


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 1], [0], "one length"),
        ([0], [3], "predictions range from 3 to 3; allowed: 0 to 2"),
        ([-1], [0], "labels range from -1 to -1"),
    ],
)
def test_confusion_matrix_refuses_what_it_would_miscount(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(labels, predictions, num_classes=3)


def test_no_measures_without_samples():
    with pytest.raises(ValueError, match="without test samples"):
        classification_measures(confusion_matrix([], [], num_classes=3))


@given(st.lists(st.integers(0, 1000), max_size=12))
@settings(deadline=None)
def test_entropy_is_between_none_and_that_of_equal_classes(counts):
    value = entropy(counts)
    occurring = sum(count > 0 for count in counts)
    assert 0 <= value <= math.log(max(occurring, 1)) + 1e-12
    assert (value == 0) == (occurring <= 1)
    assert value == pytest.approx(entropy([3 * count for count in counts] + [0]))


def test_entropy_of_equal_classes():
    assert entropy([7] * 10) == pytest.approx(math.log(10))


def test_aulc_weighs_by_the_width_of_the_steps():
    # trapezoids 0.1 x 0.5 and 0.3 x 0.8 over a range of 0.4
    assert aulc([0.1, 0.2, 0.5], [0.4, 0.6, 1.0]) == pytest.approx((0.05 + 0.24) / 0.4)


def test_aulc_of_equal_steps_as_published():
    # Random on CIFAR-10 as reprinted with the paper: AULC 60.12
    published = [0.5060, 0.5429, 0.5976, 0.6285, 0.6516, 0.6652]
    assert aulc(np.linspace(0.10, 0.35, 6), published) == pytest.approx(0.6012, abs=5e-5)


def test_aulc_without_a_range_is_the_mean():
    assert aulc([1.0, 1.0], [0.5, 0.7]) == pytest.approx(0.6)


@given(curves())
@settings(deadline=None)
def test_aulc_is_a_mean_of_the_accuracies(curve):
    fraction, accuracy = curve
    assert 0 <= aulc(fraction, accuracy) <= 1
    assert accuracy.min() - 1e-12 <= aulc(fraction, accuracy) <= accuracy.max() + 1e-12


@pytest.mark.parametrize(
    ("fraction", "accuracy", "message"),
    [([], [], "at least 1"), ([0.1], [0.1, 0.2], "one length"), ([0.2, 0.1], [0.1, 0.2], "never decrease")],
)
def test_aulc_refuses_what_is_no_curve(fraction, accuracy, message):
    with pytest.raises(ValueError, match=message):
        aulc(fraction, accuracy)

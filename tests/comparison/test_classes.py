import numpy as np
import pandas as pd
import pytest

from kafal_pipeline.comparison.classes import (
    balance,
    class_accuracy,
    client_accuracy,
    client_spread,
    queried_classes,
)


@pytest.fixture
def classes():
    rows = [
        # strategy, seed, cycle, class, accuracy, queried
        *(("a", 0, 0, 0, 0.1, 99), ("a", 0, 0, 1, 0.2, 99)),
        *(("a", 0, 1, 0, 0.5, 3), ("a", 0, 1, 1, 0.9, 1)),
        *(("a", 1, 0, 0, 0.1, 99), ("a", 1, 0, 1, 0.2, 99)),
        *(("a", 1, 1, 0, 0.7, 1), ("a", 1, 1, 1, 0.5, 3)),
    ]
    return pd.DataFrame(rows, columns=["strategy", "seed", "cycle", "class", "accuracy", "queried"])


def test_shares_are_of_what_queries_bought(classes):
    only_first = classes[classes["seed"] == 0]
    assert queried_classes(only_first).loc["a"].tolist() == [0.75, 0.25]
    assert queried_classes(classes).loc["a"].tolist() == [0.5, 0.5]


def test_without_queries_shares_and_balance_are_unknown(classes):
    shares = queried_classes(classes[classes["cycle"] == 0])
    assert shares.shape == (1, 2)
    assert shares.isna().all(axis=None)
    assert balance(shares).isna().all()


def test_accuracy_of_a_class_is_that_after_the_last_cycle(classes):
    assert class_accuracy(classes).loc["a"].tolist() == pytest.approx([0.6, 0.7])


def test_a_class_without_test_images_stays_unknown(classes):
    classes.loc[classes["class"] == 1, "accuracy"] = np.nan
    assert class_accuracy(classes)[1].isna().all()


def test_a_client_is_measured_by_its_own_class_mix(classes):
    clients = pd.DataFrame(
        [(0, 0, 0, 30), (0, 0, 1, 10), (0, 1, 0, 0), (0, 1, 1, 5), (1, 0, 0, 1), (1, 0, 1, 1)],
        columns=["seed", "client", "class", "count"],
    )
    found = client_accuracy(classes, clients)
    assert found["accuracy"].tolist() == pytest.approx([(30 * 0.5 + 10 * 0.9) / 40, 0.9, 0.6])
    assert found["samples"].tolist() == [40, 5, 2]
    spread = client_spread(found).loc["a"]
    assert spread["worst"] == pytest.approx((0.6 + 0.6) / 2)
    assert spread["best"] == pytest.approx((0.9 + 0.6) / 2)
    assert spread["gap"] == pytest.approx(0.15)

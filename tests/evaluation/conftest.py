import pytest


@pytest.fixture
def make_metrics():
    """Return a function that makes the metrics of a run whose accuracy rises by 0.1 a cycle up to 0.9."""

    def make(cycles=3, classes=("cat", "dog")):
        gains = [0.1 * min(cycle, 4) for cycle in range(cycles)]
        return [
            {
                "cycle": cycle,
                "labels": 100 + 50 * cycle,
                "labelled_fraction": (100 + 50 * cycle) / 1000,
                "accuracy": 0.5 + gains[cycle],
                "balanced_accuracy": 0.4 + gains[cycle],
                "macro_f1": 0.3 + gains[cycle],
                "per_class_accuracy": [0.25 + gains[cycle]] * (len(classes) - 1) + [None],
                "classes": list(classes),
                "queried_histogram": [30 + cycle, *[20] * (len(classes) - 1)],
                "queried_entropy": 0.6 if cycle else None,
                "train_seconds": 2.0,
                "query_seconds": 0.5 if cycle else None,
                "evaluate_seconds": 0.25,
                "bytes_sent": 1000,
            }
            for cycle in range(cycles)
        ]

    return make


@pytest.fixture
def make_people_metrics(make_metrics):
    """Return a function that makes the metrics of such a run whose labels people gave, and timed or not."""

    def make(cycles=3, timed=True):
        return [
            row
            | {
                "annotation_asked": 1100 + 60 * row["cycle"],
                "annotation_labelled": 1000 + 50 * row["cycle"],
                "annotation_skipped": 10 * row["cycle"],
                "annotation_unusable": 0,
                "annotation_unknown_class": 1,
                "annotation_conflicts": 2,
                "annotation_open": 3,
                "annotation_test_labels": 40,
                "annotation_kappa": 0.8125 if row["cycle"] else None,
                "annotation_seconds_per_label": 2.25 if timed else None,
                "annotation_hours": 0.65 + 0.03 * row["cycle"] if timed else None,
            }
            for row in make_metrics(cycles)
        ]

    return make

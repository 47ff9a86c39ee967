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

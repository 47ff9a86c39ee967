import json
from functools import partial

import numpy as np
import pytest

from kafal_pipeline.comparison import load_runs

CONFIGURATION = {
    "seed": 0,
    "cycles": 3,
    "preset": "kafal_code",
    "query": {"name": "random", "label": "random", "options": {}},
    "update": {"name": "kcfu", "label": "kcfu", "options": {}},
    "dataset": {"name": "toy", "label": None},
    "training": {"lr": 0.05, "augmentation": {"flip": False}},
}


@pytest.fixture(scope="session")
def write_run_below():
    """Return a function that writes a run below a folder, as it lies on disk, and returns the run's own folder."""

    def write(
        root, query="random", update="kcfu", seed=0, gain=0.0, classes=("cat", "dog"), finished=3, skipped=0, **changes
    ):
        rng = np.random.default_rng([seed, len(query)])
        folder = root / "07_model_output" / "toy" / f"{query}-{update}" / f"seed_{seed}"
        folder.mkdir(parents=True)
        named = {
            "seed": seed,
            "query": {"name": query, "label": query, "options": changes.pop("options", {})},
            "update": {**CONFIGURATION["update"], "name": update, "label": update},
        }
        (folder / "configuration.json").write_text(json.dumps(CONFIGURATION | named | changes))
        for cycle in range(finished):
            accuracy = 0.5 + 0.1 * cycle + 0.01 * seed + gain * cycle + (0.004 * rng.random() if cycle else 0)
            metrics = {
                "cycle": cycle,
                "labels": 100 + 50 * cycle,
                "labelled_fraction": (100 + 50 * cycle) / 1000,
                "accuracy": accuracy,
                "balanced_accuracy": accuracy,
                "macro_f1": accuracy,
                "per_class_accuracy": [accuracy - 0.1, *[accuracy + 0.1] * (len(classes) - 2), None],
                "classes": list(classes),
                "queried_histogram": [30 + cycle, *[20] * (len(classes) - 1)],
                "queried_entropy": 0.6 if cycle else None,
                "train_seconds": 2.0,
                "query_seconds": 0.5 if cycle else None,
                "evaluate_seconds": 0.25,
                "bytes_sent": 1000,
                **({"skipped_client_rounds": skipped} if skipped else {}),
            }
            (folder / f"cycle_{cycle:02d}").mkdir()
            (folder / f"cycle_{cycle:02d}" / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return write


@pytest.fixture
def write_run(write_run_below, tmp_path):
    return partial(write_run_below, tmp_path)


@pytest.fixture
def make_tables(write_run):
    """Return a function that writes and loads runs of several queries, updates and seeds; later queries are better."""

    def make(queries=("random", "entropy", "ksas"), updates=("kcfu",), seeds=7, step=0.02, **options):
        folders = [
            write_run(query, update, seed, gain=step * place, **options)
            for place, query in enumerate(queries)
            for update in updates
            for seed in range(seeds)
        ]
        return load_runs(folders)

    return make

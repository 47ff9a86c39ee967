"""How long a cycle takes on features in the place of images: 50,000 x 384, ten clients, KAFAL's published budgets.

    python benchmarks/features.py

The features are random, with three clusters a class. One process a core, as in a run, but without Kedro; the first
cycle starts the processes. Writes benchmarks/results/features.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from kafal_pipeline.common.files import write_json
from kafal_pipeline.common.machine import cores, processor
from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, initial_pool, make_partition, open_store
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.federation.workers.pool import Workers

RESULTS = Path(__file__).parent / "results" / "features.json"
CLASSES, CLUSTERS = 10, 3
PAIRS = (("random", "fedavg"), ("ksas", "kcfu"), ("badge", "fedavg"), ("coreset", "fedavg"), ("random", "ridge"))


def make_features(folder: Path, train: int, test: int, width: int) -> ImageData:
    """Store random features, float16, with labels."""
    rng = np.random.default_rng(0)
    centres = rng.normal(scale=3 / np.sqrt(width), size=(CLASSES, CLUSTERS, width))
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", train), ("test", test)):
        labels = rng.integers(CLASSES, size=count)
        rows = centres[labels, rng.integers(CLUSTERS, size=count)] + rng.normal(size=(count, width))
        arrays |= {f"{part}_features": rows.astype(np.float16), f"{part}_labels": labels}
    np.savez(folder / "features.npz", **arrays)
    return open_store(configured("random", "fedavg", folder).dataset, folder, folder / "features" / "images")


def configured(query: str, update: str, folder: Path) -> Any:
    """Return the configuration: rounds and epochs of the default run, batches of 128."""
    return resolve(
        {
            "query": query,
            "update": update,
            "model": "linear",
            "dataset": {"name": "features", "path": str(folder / "features.npz")},
            "partition": {"clients": 10, "alpha": 0.1, "min_size": 100},
            "federation": {"rounds": 1, "participation": 1.0} if update == "ridge" else {},
            "training": {"batch_size": 128, "lr": 0.01, "augmentation": {"flip": False, "crop_padding": 0}},
        }
    )


def measure(config: Any, data: ImageData) -> dict[str, Any]:
    """Run a trial; return the seconds of each cycle and its accuracy."""
    split = make_partition(data.train_labels, config.partition, config.seed)
    pool = initial_pool(split, data.train_labels, config.budget, config.cycles, config.seed)
    cycles: list[dict[str, Any]] = []
    with Workers(data, config) as workers:
        begin = time.perf_counter()
        for step in Trial(config, data, Simulation(config, workers, pool)).run():
            if step.name == "evaluate":
                taken = {key: round(step.result[key] or 0, 3) for key in step.result if key.endswith("_seconds")}
                now = time.perf_counter()
                shown = {key: step.result[key] for key in ("labels", "accuracy")}
                cycles.append({"seconds": round(now - begin, 3), **taken, **shown})
                begin = now
    return {"seconds_a_cycle": float(np.median([cycle["seconds"] for cycle in cycles])), "cycles": cycles}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found: dict[str, Any] = {"train": options.train, "test": options.test, "width": options.width}
    found |= {"processor": processor(), "cores": cores(), "runs": {}}
    with tempfile.TemporaryDirectory() as folder:
        data = make_features(Path(folder), options.train, options.test, options.width)
        for query, update in PAIRS:
            found["runs"][f"{query}-{update}"] = run = measure(configured(query, update, Path(folder)), data)
            last = run["cycles"][-1]
            print(
                f"{query}-{update}: {run['seconds_a_cycle']:.2f} s a cycle, {100 * last['accuracy']:.1f} %", flush=True
            )
    write_json(options.out, found, indent=2)


if __name__ == "__main__":
    main()

"""What checkpoints cost: the same cycle trained with and without them, turn by turn.

    python benchmarks/checkpoints.py [--data data/01_raw/cifar10.npz] [--turns 5]

Prints a table and writes benchmarks/results/checkpoints.json. The default run's first cycle on the embedded digits,
whose rounds take a third of a second: the dearest case; with --data also two rounds of the preset cifar10_small.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
from kafal_pipeline.config import resolve
from kafal_pipeline.data import client_pools, initial_pool, make_partition, open_store
from kafal_pipeline.federation.checkpoints import Checkpoints
from kafal_pipeline.federation.cycle import train_cycle
from kafal_pipeline.federation.states import initial_state
from kafal_pipeline.federation.workers import Workers
from matrix import parameters

RESULTS = Path(__file__).parent / "results" / "checkpoints.json"


def turns(values: dict[str, Any], folder: Path, count: int) -> list[dict[str, float]]:
    """Seconds of a cycle without and with checkpoints, and the bytes of a round's."""
    config = resolve(values | {"tracking": False})
    data = open_store(config.dataset, folder, folder / f"images_{config.dataset.folder}")
    split = make_partition(data.train_labels, config.partition, config.seed)
    pools = client_pools(initial_pool(split, data.train_labels, config.budget, config.cycles, config.seed))
    start = initial_state(config.model, in_channels=data.channels, num_classes=data.num_classes, seed=0, cycle=0)
    rows = []
    with Workers(data, config) as workers:

        def seconds(checkpoints: Checkpoints | None) -> float:
            begin = time.perf_counter()
            train_cycle(config, pools, start, 0, workers, checkpoints=checkpoints)
            return time.perf_counter() - begin

        seconds(None)  # warm
        for turn in range(count):
            place = folder / f"{config.dataset.folder}_{turn}"
            kept = Checkpoints(place, "benchmark")
            pair = [seconds(kept), seconds(None)] if turn % 2 else [seconds(None), seconds(kept)][::-1]
            size = max(path.stat().st_size for path in place.iterdir())
            rows.append({"ratio": pair[0] / pair[1], "seconds_a_round": pair[1] / config.federation.rounds})
            rows[-1]["megabytes_a_round"] = size / 1e6
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="CIFAR-10 as an .npz with MedMNIST's keys")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    results: dict[str, object] = {"turns": options.turns}
    with tempfile.TemporaryDirectory() as name:
        cases = {"digits": parameters("base")}
        if options.data:
            values = parameters("cifar10_small")
            values["dataset"] = {"name": "cifar10_npz", "path": str(Path(options.data).resolve())}
            values["partition"] = {"method": "dirichlet_balanced", "clients": 10, "alpha": 0.1}
            values["federation"] = {**values["federation"], "rounds": 2}
            cases["cifar10_small"] = values
        for case, values in cases.items():
            rows = turns(values, Path(name), options.turns)
            for key in rows[0]:
                found = [row[key] for row in rows]
                results[f"{case}_{key}"] = {"median": statistics.median(found), "min": min(found), "max": max(found)}
    measure.write(RESULTS, results)


if __name__ == "__main__":
    main()

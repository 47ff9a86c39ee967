"""Every query with every update: whether each pair runs, how long it takes, and how accurate it gets.

    python benchmarks/matrix.py --env smoke
    python benchmarks/matrix.py --updates kcfu fedavg --seeds 0 1 2 3 4 5 6 7 8 9

Runs the nodes of the pipeline without Kedro, in memory, one run a core; nothing is written but
benchmarks/results/matrix_<env>.csv, a row a run. Runs that succeeded there are not repeated (delete the file to begin
again). The exit code is 1 if a pair fails. The embedded digits are the data.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from kafal_pipeline.common.machine import cores
from kafal_pipeline.config import resolve
from kafal_pipeline.data import open_store
from kafal_pipeline.evaluation import learning_curve, summary
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.pipelines.fal import nodes
from kafal_pipeline.pipelines.partition import nodes as partition
from kafal_pipeline.query import QUERIES
from kafal_pipeline.update import UPDATES
from protocol import parameters

FIELDS = ("query", "update", "seed", "aulc", "final_accuracy", "final_balanced_accuracy", "cpu_seconds", "error")


def trial(env: str, query: str, update: str, seed: int) -> dict[str, Any]:
    """Do one run and return its row."""
    torch.set_num_threads(1)
    start = time.process_time()
    resources = Resources()
    row: dict[str, Any] = {"query": query, "update": update, "seed": seed}
    try:
        values = parameters(env) | {"query": query, "update": update, "seed": seed, "tracking": False}
        values["training"] = {**values["training"], "processes": 1}
        row |= _measured(values, resources)
    except Exception as error:  # the table says which pairs fail
        row["error"] = repr(error)
    resources.close()
    return row | {"cpu_seconds": round(time.process_time() - start, 2)}


def _measured(values: dict[str, Any], resources: Resources) -> dict[str, Any]:
    config = resolve(values)
    with tempfile.TemporaryDirectory() as folder:
        images = open_store(config.dataset, Path(folder), Path(folder) / "images")
        splits, _, origin = partition.split_clients(images, values)
        pool = nodes.draw_initial_pool(splits, origin, images, values)
        metrics, trained, memory = [], None, ()
        for cycle in range(config.cycles):
            queried = cost = None
            if trained is not None:
                queried, cost, *memory = nodes.query(resources, cycle, pool, *trained, images, values, *memory)
                pool = nodes.annotate_queried(cycle, pool, queried, images, values)
            model, local, rounds, seconds = nodes.train(
                resources, cycle, pool, images, values, None if trained is None else trained[0]
            )
            metrics.append(nodes.evaluate(resources, cycle, model, pool, rounds, seconds, images, values, cost))
            trained = (model, local, rounds)
    found = summary(learning_curve(metrics), config)
    return {key: found[key] for key in FIELDS if key in found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="base")
    parser.add_argument("--queries", nargs="+", default=sorted(QUERIES))
    parser.add_argument("--updates", nargs="+", default=sorted(UPDATES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=cores())
    options = parser.parse_args()
    file = Path(__file__).parent / "results" / f"matrix_{options.env}.csv"
    rows = []
    if file.exists():
        with file.open() as stream:
            rows = [row for row in csv.DictReader(stream) if not row["error"]]
    done = {(row["query"], row["update"], int(row["seed"])) for row in rows}
    wanted = itertools.product(options.seeds, options.queries, options.updates)
    left = [(query, update, seed) for seed, query, update in wanted if (query, update, seed) not in done]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kafal_pipeline.federation.workers.worker", "kafal_pipeline.pipelines.fal.nodes"])
    failed = 0
    with file.open("w", newline="") as stream, ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        table = csv.DictWriter(stream, FIELDS)
        table.writeheader()
        table.writerows(rows)
        futures = [pool.submit(trial, options.env, *run) for run in left]
        for number, future in enumerate(as_completed(futures), 1):
            row = future.result()
            failed += "error" in row
            table.writerow(row)
            stream.flush()
            text = row.get("error") or f"AULC {100 * row['aulc']:.2f}, final {100 * row['final_accuracy']:.2f}"
            print(f"{number}/{len(left)} {row['query']}-{row['update']} seed {row['seed']}: {text}", flush=True)
    print(f"Written to {os.path.relpath(file)}{f'; {failed} failed' if failed else ''}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

"""What every query costs: seconds and memory for one client with a large pool.

    python benchmarks/queries.py [--only badge typiclust] [--pool 40000] [--budget 250]

Prints a table and writes benchmarks/results/queries.json. Model outputs are given (64 random
features around class centres, 10 classes), since they cost the same for all queries. Each query runs in a process of
its own, with one thread, as clients do in a run; seconds are the processor's, so that other programs do not count.
Memory is the most that this process ever took, PyTorch and the outputs of all models included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kafal_pipeline.query import QUERIES
from kafal_pipeline.query.base import summarises
from kafal_pipeline.query.pool import Head, Outputs, PoolView
from kafal_pipeline.registry import create

CLASSES, WIDTH, LABELLED = 10, 64, 2000
RESULTS = Path(__file__).parent / "results" / "queries.json"
OPTIONS = {"compose": {"score": "margin", "quota": "global_prototypes", "diversity": "k_centre"}}


def make_pool(size: int) -> PoolView:
    rng = np.random.default_rng(0)
    kinds = ("global", "local", "downloaded", "local_only", "finetuned", "distilled")
    centres = rng.normal(size=(CLASSES, WIDTH))
    classes = rng.integers(CLASSES, size=size + LABELLED)
    tables, heads = {}, {}
    for kind in kinds:
        features = np.maximum(centres[classes] + rng.normal(size=(size + LABELLED, WIDTH)), 0)
        weight = torch.tensor(centres + 0.3 * rng.normal(size=centres.shape), dtype=torch.float32) / 4
        tables[kind] = torch.tensor(features, dtype=torch.float32)
        heads[kind] = Head(weight, torch.zeros(CLASSES))

    def forward(kind: str, samples: np.ndarray) -> Outputs:
        features = tables[kind][torch.as_tensor(samples)]
        return Outputs(features @ heads[kind].weight.T, features)

    known = np.arange(size, size + LABELLED)
    watched = {"samples": np.arange(500), "changes": rng.integers(0, 9, 500)}
    return PoolView(0, np.arange(size), known, classes[known], CLASSES, forward, heads.__getitem__, watched=watched)


def measure(name: str, size: int, budget: int) -> tuple[float, float]:
    """Return seconds and megabytes of one query."""
    torch.set_num_threads(1)
    query, pool = create("query", name, OPTIONS.get(name, {}), QUERIES), make_pool(size)
    start = time.process_time()
    if summarises(query):
        pool = replace(pool, summaries={0: query.summary(pool)})
    selection = query.select(pool, budget, np.random.default_rng(0))
    seconds = time.process_time() - start
    assert len(set(selection.samples.tolist())) == budget
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(QUERIES), default=sorted(QUERIES))
    parser.add_argument("--pool", type=int, default=40_000)
    parser.add_argument("--budget", type=int, default=250)
    options = parser.parse_args()
    results = {}
    context = multiprocessing.get_context("spawn")
    print(f"{'query':18s} {'seconds':>9s} {'MB':>8s}")
    for name in options.only:
        with context.Pool(1) as process:
            seconds, megabytes = process.apply(measure, (name, options.pool, options.budget))
        results[name] = {"seconds": round(seconds, 3), "megabytes": round(megabytes, 1)}
        print(f"{name:18s} {seconds:9.2f} {megabytes:8.0f}", flush=True)
    if options.only == sorted(QUERIES):
        setting = {"pool": options.pool, "budget": options.budget, "features": WIDTH, "classes": CLASSES}
        content = {**setting, "torch": torch.__version__, "threads": 1, "queries": results}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(content, indent=2) + "\n")
        print(f"Written to {RESULTS}")


if __name__ == "__main__":
    main()

"""What every query costs: seconds and memory for one client with a large pool.

    python benchmarks/queries.py [--queries badge typiclust] [--pool 40000] [--budget 250] [--features 64]
        [--output FILE]
    python benchmarks/queries.py --check

Prints a table and writes benchmarks/results/queries.json; figures of queries that are not measured stay as they are.
With each stands a digest of the query's code: --check measures nothing, names the queries whose code is another now,
and ends with exit code 1 if there are any.

Model outputs are given (random features around class centres, 10 classes), since they cost the same for all
queries. Each query runs in a process of its own, with one thread, as clients do in a run; seconds are the processor's,
so that other programs do not count. Memory is the most that this process ever took, PyTorch and the outputs of the
models that it asks included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from kafal_pipeline.common.files import write_text
from kafal_pipeline.common.registry import create
from kafal_pipeline.query import QUERIES
from kafal_pipeline.query.base import summarises
from kafal_pipeline.query.pool import Head, Outputs, PoolView, QueryModel
from kafal_pipeline.runs.code_digest import query_digest

CLASSES, WIDTH, LABELLED = 10, 64, 2000
RESULTS = Path(__file__).parent / "results" / "queries.json"
COMMAND = "python benchmarks/queries.py --queries"
OPTIONS = {"compose": {"score": "margin", "quota": "global_prototypes", "diversity": "k_centre"}}


def make_pool(size: int, width: int, spent: list[float]) -> PoolView:
    """Return a pool; what a model says is made when it is asked, and the seconds that takes are added to `spent`."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, width)).astype(np.float32)
    classes = rng.integers(CLASSES, size=size + LABELLED)

    @cache
    def model(kind: QueryModel) -> tuple[torch.Tensor, Head]:
        start = time.process_time()
        own = np.random.default_rng([0, get_args(QueryModel).index(kind)])
        features = own.standard_normal(size=(size + LABELLED, width), dtype=np.float32)
        for group in range(CLASSES):
            features[classes == group] += centres[group]
        np.maximum(features, 0, out=features)
        weight = torch.tensor(centres + 0.3 * own.normal(size=centres.shape), dtype=torch.float32) / 4
        spent.append(time.process_time() - start)
        return torch.from_numpy(features), Head(weight, torch.zeros(CLASSES))

    def forward(kind: QueryModel, samples: np.ndarray) -> Outputs:
        table, head = model(kind)
        features = table[torch.as_tensor(samples)]
        return Outputs(features @ head.weight.T, features)

    known = np.arange(size, size + LABELLED)
    watched = {"samples": np.arange(500), "changes": rng.integers(0, 9, 500)}
    return PoolView(
        0, np.arange(size), known, classes[known], CLASSES, forward, lambda kind: model(kind)[1], watched=watched
    )


def measure(name: str, size: int, budget: int, width: int = WIDTH) -> tuple[float, float]:
    """Return seconds and megabytes of one query."""
    torch.set_num_threads(1)
    spent: list[float] = []
    query, pool = create("query", name, OPTIONS.get(name, {}), QUERIES), make_pool(size, width, spent)
    start = time.process_time()
    if summarises(query):
        pool = replace(pool, summaries={0: query.summary(pool)})
    selection = query.select(pool, budget, np.random.default_rng(0))
    seconds = time.process_time() - start - sum(spent)
    assert len(set(selection.samples.tolist())) == budget
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def digest(name: str) -> str:
    """Return a digest of the code that is measured."""
    return query_digest(name, OPTIONS.get(name, {}))


def outdated(figures: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """Return which of the queries have no figures, or figures of other code than the present."""
    return [name for name in names if figures.get(name, {}).get("sources") != digest(name)]


def read(file: Path, setting: Mapping[str, int]) -> dict[str, Any]:
    """Return the figures of all queries that there still are; figures of another setting are never mixed in."""
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    found = {key: content[key] for key in setting}
    if found != setting:
        raise SystemExit(f"Error: {file} holds figures of {found}, not of {setting}; give another --output.")
    return {name: figures for name, figures in content["queries"].items() if name in QUERIES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", nargs="+", choices=sorted(QUERIES), default=sorted(QUERIES), metavar="QUERY")
    parser.add_argument("--pool", type=int, default=40_000)
    parser.add_argument("--budget", type=int, default=250)
    parser.add_argument("--features", type=int, default=WIDTH)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    setting = {
        "pool": options.pool, "budget": options.budget, "features": options.features, "classes": CLASSES, "threads": 1
    }  # fmt: skip
    results = read(options.output, setting)
    if options.check:
        old = outdated(results, options.queries)
        if old:
            raise SystemExit(f"Older than their code, or not measured. Run: {COMMAND} {' '.join(old)}")
        print("All figures are those of the present code.")
        return
    context = multiprocessing.get_context("spawn")
    print(f"{'query':18s} {'seconds':>9s} {'MB':>8s}")
    for name in options.queries:
        sources = digest(name)
        with context.Pool(1) as process:
            seconds, megabytes = process.apply(measure, (name, options.pool, options.budget, options.features))
        results[name] = {
            "seconds": round(seconds, 3),
            "megabytes": round(megabytes, 1),
            "torch": torch.__version__,
            "sources": sources,
        }
        print(f"{name:18s} {seconds:9.2f} {megabytes:8.0f}", flush=True)
    options.output.parent.mkdir(exist_ok=True)
    write_text(options.output, json.dumps({**setting, "queries": dict(sorted(results.items()))}, indent=2) + "\n")
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()

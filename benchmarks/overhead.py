"""What a whole, tracked run takes beyond the engine, and the memory of all its processes.

    python benchmarks/overhead.py [--env cifar10_small] [--params dataset.path=data/01_raw/cifar10.npz]

Runs `kedro run --pipeline fal` once, with seed 987 so that it is in nobody's way, after a run of the preset `smoke`
that brings all packages into memory, and sets the command's wall time beside the seconds of queries, training and
evaluations, and of the engine's own import (PyTorch): the rest is Kedro's start, MLflow, tables and figures. MLflow's
helper process works beside the training; its CPU time is given as a share of what the cores could do meanwhile. Memory
is the largest sum over all processes, pages that they share counted once. Writes benchmarks/results/overhead.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil

from measure import write

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "overhead.json"
KINDS = {"kafal_pipeline.tracking": "tracking", "resource_tracker": "workers", "forkserver": "workers"}
"""What processes are, by what stands in their command lines."""

ENGINE = ["train_seconds", "query_seconds", "evaluate_seconds"]


def run(arguments: list[str]) -> tuple[float, float, Counter[str]]:
    """Return a command's seconds, the helper's CPU seconds, and MB of each kind of process when memory was fullest."""
    start = time.perf_counter()
    program = psutil.Popen([sys.executable, "-m", "kedro", "run", "--pipeline", "fal", *arguments], cwd=ROOT)
    fullest: Counter[str] = Counter()
    helper = 0.0
    while program.poll() is None:
        now: Counter[str] = Counter()
        for process in [program, *program.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                line = " ".join(process.cmdline())
                kind = next((kind for mark, kind in KINDS.items() if mark in line), "main")
                now[kind] += process.memory_full_info().pss / 1e6
                if kind == "tracking":
                    times = process.cpu_times()
                    helper = max(helper, times.user + times.system)
        fullest = max(fullest, now, key=Counter.total)
        time.sleep(1)
    if program.returncode:
        raise SystemExit(program.returncode)
    return time.perf_counter() - start, helper, fullest


def import_seconds() -> float:
    """Return the seconds in which a fresh Python imports the engine, which is PyTorch's import for the most part."""
    code = (
        "import time; t = time.perf_counter(); import kafal_pipeline.federation.workers; print(time.perf_counter() - t)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="cifar10_small")
    parser.add_argument("--params", default="", help="as `kedro run` takes them")
    given = parser.parse_args()
    run(["--env", "smoke", "--params", "seed=987,restart=true"])  # warm: packages read from the disk
    params = ",".join(filter(None, [given.params, "seed=987,restart=true"]))
    seconds, helper, fullest = run(["--env", given.env, "--params", params])
    curve = ROOT / "data/08_reporting" / given.env / "ksas-kcfu/seed_987/learning_curve.csv"
    engine = float(pd.read_csv(curve)[ENGINE].sum().sum())
    write(
        RESULTS,
        {
            "env": given.env,
            "seconds": seconds,
            "engine_seconds": engine,
            "import_seconds": (imports := import_seconds()),
            "overhead_share": 1 - (engine + imports) / seconds,
            "overhead_share_with_imports": 1 - engine / seconds,
            "helper_share_of_cores": helper / (seconds * (os.cpu_count() or 1)),
            "helper_cpu_seconds": helper,
            "peak_memory_mb": fullest.total(),
            **{f"peak_memory_mb_{kind}": value for kind, value in sorted(fullest.items())},
        },
    )


if __name__ == "__main__":
    main()

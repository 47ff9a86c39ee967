"""What a whole, tracked run takes beyond the engine, and the memory of all its processes.

    python benchmarks/overhead.py [--env cifar10_small] [--params dataset.path=data/01_raw/cifar10.npz]

Runs `kedro run --pipeline fal` once, with seed 987 so that it is in nobody's way, and sets the command's wall time
beside the seconds of queries, training and evaluations: the rest is Python's and Kedro's start, MLflow, tables and
figures. MLflow's helper process works beside the training; its CPU time is given as a share of what the cores could do
meanwhile. Memory is the largest sum over all processes, pages that they share counted once. Writes
benchmarks/results/overhead.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import pandas as pd
import psutil

from measure import write

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "overhead.json"
ENGINE = ["train_seconds", "query_seconds", "evaluate_seconds"]


def run(arguments: list[str]) -> dict[str, float]:
    """Run the command, and look at its processes every second."""
    start = time.perf_counter()
    program = psutil.Popen([sys.executable, "-m", "kedro", "run", "--pipeline", "fal", *arguments], cwd=ROOT)
    peak, helper = 0, 0.0
    while program.poll() is None:
        total = 0
        for process in [program, *program.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
                if "kafal_pipeline.tracking" in " ".join(process.cmdline()):
                    times = process.cpu_times()
                    helper = max(helper, times.user + times.system)
            except (psutil.Error, OSError):
                continue
        peak = max(peak, total)
        time.sleep(1)
    if program.returncode:
        raise SystemExit(program.returncode)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_memory_mb": peak / 1e6, "helper_cpu_seconds": helper}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="cifar10_small")
    parser.add_argument("--params", default="", help="as `kedro run` takes them")
    given = parser.parse_args()
    params = ",".join(filter(None, [given.params, "seed=987,restart=true"]))
    measured = run(["--env", given.env, "--params", params])
    curve = ROOT / "data/08_reporting" / given.env / "ksas-kcfu/seed_987/learning_curve.csv"
    engine = float(pd.read_csv(curve)[ENGINE].sum().sum())
    seconds = measured["seconds"]
    write(
        RESULTS,
        {
            "env": given.env,
            **measured,
            "engine_seconds": engine,
            "overhead_share": 1 - engine / seconds,
            "helper_share_of_cores": measured["helper_cpu_seconds"] / (seconds * (os.cpu_count() or 1)),
        },
    )


if __name__ == "__main__":
    main()

"""What a whole, tracked run takes beyond the engine, what tracking costs of it, and the memory of all its processes.

    python benchmarks/overhead.py [--env cifar10_small] [--params dataset.path=data/01_raw/cifar10.npz] [--turns 1]

Runs `kedro run --pipeline fal` with seed 987, so that it is in nobody's way: first the preset `smoke`, which brings all
packages into memory, then in each turn the given preset with `tracking=off` and with tracking.

*Beyond the engine* is the tracked command's wall time less the seconds of queries, training and evaluations, and of the
engine's own import (PyTorch): Kedro's start, MLflow, tables and figures.

*Logging* costs wall time in two ways: the command starts later and ends later, and MLflow's helper takes cores from
the training. The first is the difference of both commands' seconds outside the engine. The second is the difference of
the seconds in which the run's own threads were ready and had to wait for a core, as Linux counts them
(/proc/<process>/task/*/schedstat); all of them are taken for lost, as if no two threads had ever waited at once. Their
sum, as a share of the untracked command's seconds, is `logging_share`. It leaves out how fast the training itself was,
which differs by more from one run to the next than tracking costs: `tracked_over_untracked` has that in it.

Memory is the largest sum over all processes, pages that they share counted once. Writes
benchmarks/results/overhead.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

from measure import spread, write

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "overhead.json"
TRACKING = "tracking"
KINDS = {"kafal_pipeline.tracking": TRACKING, "resource_tracker": "workers", "forkserver": "workers"}
"""What processes are, by what stands in their command lines."""

ENGINE = ["train_seconds", "query_seconds", "evaluate_seconds"]
PAUSE = 0.5
"""Seconds between two looks at the processes."""


@dataclass
class Run:
    """One command: its seconds, and what its processes took as far as the last look at them saw."""

    seconds: float = 0.0
    engine: float = 0.0
    fullest: Counter[str] = field(default_factory=Counter)
    helper: float = 0.0
    waits: dict[str, float] = field(default_factory=dict)

    @property
    def waited(self) -> float:
        """Seconds in which threads of the run, not of its helper, were ready and had no core."""
        return sum(self.waits.values())

    def look(self, program: psutil.Popen) -> None:
        """Look at all processes."""
        now: Counter[str] = Counter()
        for process in [program, *program.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                line = " ".join(process.cmdline())
                kind = next((kind for mark, kind in KINDS.items() if mark in line), "main")
                now[kind] += process.memory_full_info().pss / 1e6
                if kind == TRACKING:
                    times = process.cpu_times()
                    self.helper = max(self.helper, times.user + times.system)
                else:
                    self.waits |= waits(process.pid)
        self.fullest = max(self.fullest, now, key=Counter.total)


def waits(pid: int) -> dict[str, float]:
    """Return the seconds in which each thread of a process was ready and had no core; none where no one counts them."""
    found = {}
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            found[f"{pid}/{path.parent.name}"] = int(path.read_text().split()[1]) / 1e9
    return found


def run(env: str, params: str) -> Run:
    """Run a preset and look at its processes meanwhile."""
    params = ",".join(filter(None, [params, "seed=987,restart=true"]))
    done, start = Run(), time.perf_counter()
    command = [sys.executable, "-m", "kedro", "run", "--pipeline", "fal", "--env", env, "--params", params]
    program = psutil.Popen(command, cwd=ROOT)
    while program.poll() is None:
        done.look(program)
        time.sleep(PAUSE)
    if program.returncode:
        raise SystemExit(program.returncode)
    done.seconds = time.perf_counter() - start
    curve = ROOT / "data/08_reporting" / env / "ksas-kcfu/seed_987/learning_curve.csv"
    done.engine = float(pd.read_csv(curve)[ENGINE].sum().sum())
    return done


def import_seconds() -> float:
    """Return the seconds in which a fresh Python imports the engine, which is PyTorch's import for the most part."""
    code = (
        "import time; t = time.perf_counter(); import kafal_pipeline.federation.workers; print(time.perf_counter() - t)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def logging_share(off: Run, on: Run) -> float:
    """Return what tracking costs, as a share of an untracked command's seconds."""
    outside = (on.seconds - on.engine) - (off.seconds - off.engine)
    return (outside + on.waited - off.waited) / off.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="cifar10_small")
    parser.add_argument("--params", default="", help="as `kedro run` takes them")
    parser.add_argument("--turns", type=int, default=1)
    given = parser.parse_args()
    run("smoke", "")  # warm: packages read from the disk
    off, on = [], []
    for _ in range(given.turns):
        off.append(run(given.env, ",".join(filter(None, [given.params, "tracking=off"]))))
        on.append(run(given.env, given.params))
    last = on[-1]
    write(
        RESULTS,
        {
            "env": given.env,
            "turns": given.turns,
            "seconds": last.seconds,
            "engine_seconds": last.engine,
            "import_seconds": (imports := import_seconds()),
            "overhead_share": 1 - (last.engine + imports) / last.seconds,
            "overhead_share_with_imports": 1 - last.engine / last.seconds,
            "logging_share": spread([logging_share(*pair) for pair in zip(off, on, strict=True)]),
            "tracked_over_untracked": spread([b.seconds / a.seconds for a, b in zip(off, on, strict=True)]),
            "seconds_outside_engine_untracked": spread([one.seconds - one.engine for one in off]),
            "seconds_outside_engine_tracked": spread([one.seconds - one.engine for one in on]),
            "seconds_without_a_core_untracked": spread([one.waited for one in off]),
            "seconds_without_a_core_tracked": spread([one.waited for one in on]),
            "helper_share_of_cores": last.helper / (last.seconds * (os.cpu_count() or 1)),
            "helper_cpu_seconds": last.helper,
            "peak_memory_mb": last.fullest.total(),
            **{f"peak_memory_mb_{kind}": value for kind, value in sorted(last.fullest.items())},
        },
    )


if __name__ == "__main__":
    main()

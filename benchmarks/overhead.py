"""What a whole, tracked run takes beyond the engine, what tracking costs of it, and the memory of all its processes.

    python benchmarks/overhead.py [--env cifar10_small] [--params dataset.path=data/01_raw/cifar10.npz] [--turns 2]

Runs `kedro run --pipeline fal` with seed 987, so that it is in nobody's way: first the preset `smoke`, which brings all
packages into memory, then in each turn the given preset with `tracking=off` and with tracking, the first time in this
order, then in the other. Needs Linux, which counts for how long threads wait for a core.

*Outside the engine* is a command's wall time less the seconds of queries, training and evaluations: Kedro's start,
PyTorch's import, tables, figures, and the wait for MLflow at the end. *Displaced* are the seconds in which the tracked
run's own threads were ready and had to wait for a core (/proc/<process>/task/*/schedstat) beyond those of the untracked
run: MLflow's helper has taken the core. All of them count, as if no two threads had ever waited at once.

- `overhead_share`: outside the engine, less the engine's own import, and displaced: everything that the tracked run has
  around the engine, as a share of its seconds; `overhead_share_with_imports` has that import in it.
- `logging_share`: what is outside the engine in the tracked run beyond the untracked one, and displaced, as a share of
  the untracked run's seconds: an upper bound, since a second for which one of two processes waits does not make the
  run a second longer. `logging_share_of_cores` has the displaced seconds as what they are, a part of all cores' time.
  How fast training itself was is left out of both, since that differs by more from one run to the next than tracking
  costs: `tracked_over_untracked` has it.

Memory is the largest sum over all processes, pages that they share counted once; while training goes on, which a look
at it disturbs, it is looked at every ten seconds. Writes benchmarks/results/overhead.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

from measure import spread, write

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "overhead.json"
TRACKING, WORKERS = "tracking", "workers"
KINDS = {"kafal_pipeline.tracking": TRACKING, "resource_tracker": WORKERS, "forkserver": WORKERS}
"""What processes are, by what stands in their command lines."""

ENGINE = ["train_seconds", "query_seconds", "evaluate_seconds"]
PAUSE, LOOKS = 0.5, 20
"""Seconds between two looks at what threads waited for, and how many of these there are between two at the memory."""


@dataclass
class Run:
    """One command: its seconds, and what its processes took as far as the last look at them saw."""

    seconds: float = 0.0
    engine: float = 0.0
    fullest: Counter[str] = field(default_factory=Counter)
    helper: float = 0.0
    waits: dict[str, float] = field(default_factory=dict)
    trained: bool = False

    @property
    def waited(self) -> float:
        """Seconds in which threads of the run, not of its helper, were ready and had no core."""
        return sum(self.waits.values())

    @property
    def outside(self) -> float:
        """Seconds outside the engine."""
        return self.seconds - self.engine

    def look(self, program: psutil.Popen, memory: bool) -> None:
        """Look at all processes; at their `memory` too if asked, or once training has ended."""
        kinds, parents = {}, {}
        for process in [program, *program.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                line = " ".join(process.cmdline())
                kinds[process] = next((kind for mark, kind in KINDS.items() if mark in line), "main")
                parents[process] = process.parent()
        # The process that the training ones are forked off stays to the end of the run.
        trains = any(kind == kinds.get(parents.get(process)) == WORKERS for process, kind in kinds.items())
        self.trained |= trains
        now: Counter[str] = Counter()
        for process, kind in kinds.items():
            with contextlib.suppress(psutil.Error, OSError):
                if memory or (self.trained and not trains):
                    now[kind] += process.memory_full_info().pss / 1e6
                if kind == TRACKING:
                    times = process.cpu_times()
                    self.helper = max(self.helper, times.user + times.system)
                else:
                    self.waits |= waits(process.pid)
        self.fullest = max(self.fullest, now, key=Counter.total)


def waits(pid: int) -> dict[str, float]:
    """Return the seconds in which each thread of a process was ready and had no core."""
    found = {}
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            found[f"{pid}/{path.parent.name}"] = int(path.read_text().split()[1]) / 1e9
    return found


def run(env: str, params: str) -> Run:
    """Run a preset and look at its processes meanwhile."""
    params = ",".join(filter(None, [params, "seed=987,restart=true"]))
    done, start, began, ended = Run(), time.perf_counter(), time.time(), threading.Event()
    command = [sys.executable, "-m", "kedro", "run", "--pipeline", "fal", "--env", env, "--params", params]
    program = psutil.Popen(command, cwd=ROOT)

    def watch() -> None:
        looks = 0
        while not ended.wait(PAUSE):
            looks += 1
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                done.look(program, looks % LOOKS == 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = program.wait()
    done.seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(code)
    if "tracking=off" not in params:
        check_delivered(began)
    curves = (ROOT / "data/08_reporting").glob("*/*/seed_987/learning_curve.csv")
    (curve,) = (path for path in curves if path.stat().st_mtime >= began)
    done.engine = float(pd.read_csv(curve)[ENGINE].sum().sum())
    return done


def check_delivered(began: float) -> None:
    """Check that MLflow has all of the run that began then: what a tracking costs that does nothing says nothing."""
    notes = (ROOT / "data/09_tracking").glob("*/*/seed_987/*/delivered.json")
    recent = [json.loads(path.read_text()) for path in notes if path.stat().st_mtime >= began]
    if not any(note["complete"] and not note["pending"] and not note["skipped"] for note in recent):
        raise SystemExit(f"MLflow was not given all of the run: {recent}")


def import_seconds() -> float:
    """Return the seconds in which a fresh Python imports the engine, which is PyTorch's import for the most part."""
    code = "import time; t = time.perf_counter(); import kafal_pipeline.federation.workers.pool as _; "
    code += "print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def displaced(off: Run, on: Run) -> float:
    """Return the seconds in which threads of the tracked run waited for a core because its helper had it."""
    return min(max(on.waited - off.waited, 0.0), on.helper)


def logging_share(off: Run, on: Run) -> float:
    """Return what tracking costs, as a share of the untracked command's seconds."""
    return (on.outside - off.outside + displaced(off, on)) / off.seconds


def logging_share_of_cores(off: Run, on: Run) -> float:
    """Return what tracking costs if what its helper takes is taken from all cores alike."""
    return (on.outside - off.outside + displaced(off, on) / (os.cpu_count() or 1)) / off.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="cifar10_small")
    parser.add_argument("--params", default="", help="as `kedro run` takes them")
    parser.add_argument("--turns", type=int, default=2)
    given = parser.parse_args()
    if not Path("/proc/self/schedstat").exists():
        raise SystemExit("This system does not say for how long threads wait for a core (/proc/self/schedstat).")
    run("smoke", "")  # warm: packages read from the disk
    untracked = ",".join(filter(None, [given.params, "tracking=off"]))
    pairs = []
    for turn in range(given.turns):
        order = (untracked, given.params) if turn % 2 == 0 else (given.params, untracked)
        both = {params: run(given.env, params) for params in order}
        pairs.append((both[untracked], both[given.params]))
    imports = import_seconds()
    on = [pair[1] for pair in pairs]
    fullest = max((one.fullest for one in on), key=Counter.total)
    if not fullest:
        raise SystemExit("No look at the memory: the runs are too short.")
    write(
        RESULTS,
        {
            "env": given.env,
            "turns": given.turns,
            "seconds": spread([one.seconds for one in on]),
            "engine_seconds": spread([one.engine for one in on]),
            "import_seconds": imports,
            "overhead_share": spread([(b.outside - imports + displaced(a, b)) / b.seconds for a, b in pairs]),
            "overhead_share_with_imports": spread([(b.outside + displaced(a, b)) / b.seconds for a, b in pairs]),
            "logging_share": spread([logging_share(*pair) for pair in pairs]),
            "logging_share_of_cores": spread([logging_share_of_cores(*pair) for pair in pairs]),
            "tracked_over_untracked": spread([b.seconds / a.seconds for a, b in pairs]),
            "outside_seconds_untracked": spread([a.outside for a, _ in pairs]),
            "outside_seconds_tracked": spread([one.outside for one in on]),
            "waited_seconds_untracked": spread([a.waited for a, _ in pairs]),
            "waited_seconds_tracked": spread([one.waited for one in on]),
            "displaced_seconds": spread([displaced(*pair) for pair in pairs]),
            "helper_cpu_seconds": spread([one.helper for one in on]),
            "helper_share_of_cores": spread([one.helper / (one.seconds * (os.cpu_count() or 1)) for one in on]),
            "peak_memory_mb": fullest.total(),
            **{f"peak_memory_mb_{kind}": value for kind, value in sorted(fullest.items())},
        },
    )


if __name__ == "__main__":
    main()

"""CPU seconds that commands take before they begin their work, all their processes included.

    python benchmarks/startup.py [--turns 3]

Runs `kedro run --pipeline fal --env smoke` up to its first training step, with tracking on and off, `kedro registry
list`, and a run with a wrong parameter; prints a table and writes benchmarks/results/startup.json.

Tracking's helper process starts before the first training step and imports MLflow after it, so that the import, which
takes seconds, is in no figure of the first step: `helper_tracking_on` is the processor time of the helper alone, from
its start until MLflow knows of the interrupted run, import included. The next command is not begun before it has ended.
Needs Linux, where a process can have orphans handed to it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

RESULTS = Path(__file__).parent / "results" / "startup.json"
RUN = ["run", "--pipeline", "fal", "--env", "smoke", "--params"]
COMMANDS = {
    "first_step_tracking_on": ([*RUN, "seed=987"], 130),
    "first_step_tracking_off": ([*RUN, "seed=987,tracking=off"], 130),
    "registry_list": (["registry", "list"], 0),
    "configuration_error": ([*RUN, "query=nonsense"], 1),
}
"""Commands, and the exit codes that show that they came as far as they should; 130 is that of an interruption."""

HELPER_SECONDS = "helper_tracking_on"

LEAST = 0.5
"""CPU seconds of a helper that has imported MLflow, at the least."""

SET_CHILD_SUBREAPER = 36
"""Of Linux's prctl.h."""

STOP_AT_FIRST_STEP = """
import importlib.abc, importlib.machinery, os, sys

class Stop(importlib.abc.MetaPathFinder):
    # Replaces local_steps as soon as its module is loaded.
    def find_spec(self, name, path, target=None):
        if name != "kafal_pipeline.training.local":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            def stop(*_, **__):
                import psutil
                me = psutil.Process()
                # user, system, and both of the children that have ended
                times = [sum(process.cpu_times()[:4]) for process in (me, *me.children(recursive=True))]
                with open(os.environ["KAFAL_CPU_FILE"], "w") as file:
                    file.write(str(sum(times)))
                raise KeyboardInterrupt
            module.local_steps = stop
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Stop())
from kedro.framework.cli import main
sys.argv = ["kedro", *sys.argv[1:]]
main()
"""


def adopt() -> None:
    """Have the orphans of the commands handed to this process, which can wait for them then."""
    if ctypes.CDLL(None, use_errno=True).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit(f"prctl: {os.strerror(ctypes.get_errno())}")


def orphans_end() -> float | None:
    """Wait until all that a command has left has ended; return its CPU time: tracking's helper is all that stays."""
    seconds = None
    with contextlib.suppress(ChildProcessError):
        while True:
            _, _, used = os.wait4(-1, 0)
            seconds = (seconds or 0.0) + used.ru_utime + used.ru_stime
    return seconds


def cpu_seconds(arguments: list[str], code: int) -> tuple[float, float, float | None]:
    """CPU time of a command and its children to its first training step and to its end, and of the helper it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", STOP_AT_FIRST_STEP, *arguments],
            capture_output=True,
            check=False,
            text=True,
            env={**os.environ, "KAFAL_CPU_FILE": str(file)},
        )
        if done.returncode != code or (code == 130) != file.exists():
            raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        whole = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return (float(file.read_text()) if file.exists() else whole), whole, orphans_end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    adopt()
    for arguments, code in COMMANDS.values():
        cpu_seconds(arguments, code)  # warm: files cached, data prepared
    measured: dict[str, list[float]] = {name: [] for name in (*COMMANDS, "stopped_there_tracking_on", HELPER_SECONDS)}
    for _ in range(turns):
        for name, (arguments, code) in COMMANDS.items():
            first, whole, helper = cpu_seconds(arguments, code)
            measured[name].append(first)
            if name == "first_step_tracking_on":  # the helper process delivers beside the training
                measured["stopped_there_tracking_on"].append(whole)
                if helper is None or helper < LEAST:
                    raise SystemExit(f"The helper has taken {helper} s, less than MLflow's import: it does not work.")
                measured[HELPER_SECONDS].append(helper)
    results = {name: measure.spread(values) for name, values in measured.items() if values}
    measure.write(RESULTS, results)


if __name__ == "__main__":
    main()

"""How much sooner a comparison ends whose runs go side by side, against runs one after another on all cores.

    python benchmarks/side_by_side.py [--turns 3] [--seeds 4] [--env base]

In a copy of the project, each turn runs the same comparison (random and ksas, each with some seeds, tracked) with
`compare.jobs=1` and with `compare.jobs=auto`, and checks that both have made the same numbers. Writes
benchmarks/results/side_by_side.json: seconds of each, and their ratio.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from measure import spread, write

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "side_by_side.json"


def project_in(folder: Path) -> Path:
    """Put a copy of the project into a folder, without data."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "src").mkdir()
    return folder


def compare(env: str, jobs: str, seeds: int) -> tuple[float, pd.DataFrame]:
    """Return the seconds of a comparison in a fresh project, and the scores (AULC) of its runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = project_in(Path(name))
        section = f"compare.queries=[random,ksas],compare.updates=[kcfu],compare.seeds=0-{seeds - 1}"
        options = ["--pipeline", "compare", "--env", env, "--params", f"{section},compare.jobs={jobs}"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "kafal_pipeline", *options], cwd=folder, check=True)
        seconds = time.perf_counter() - start
        (table,) = (folder / "data/08_reporting").rglob("comparison/default/scores.csv")
        return seconds, pd.read_csv(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--env", default="base")
    given = parser.parse_args()
    alone, beside = [], []
    for _ in range(given.turns):
        seconds, expected = compare(given.env, "1", given.seeds)
        alone.append(seconds)
        seconds, found = compare(given.env, "auto", given.seeds)
        beside.append(seconds)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    write(
        RESULTS,
        {
            "env": given.env,
            "runs": 2 * given.seeds,
            "seconds_one_after_another": spread(alone),
            "seconds_side_by_side": spread(beside),
            "ratio": spread([one / other for one, other in zip(alone, beside, strict=True)]),
        },
    )


if __name__ == "__main__":
    main()

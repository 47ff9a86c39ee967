"""Every query under KCFU and under FedAvg on digits, ten seeds: the comparison of docs/digits.md.

    python benchmarks/digits.py [--seeds 0-9] [--report]

Runs `kedro run --pipeline compare`, hours on two cores; runs that are there are not done again, and an interrupted
comparison resumes. --report runs none. Then writes docs/digits.md and its figures from the comparison's tables.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from kafal_pipeline.query import QUERIES

ROOT = Path(__file__).parents[1]
NAME = "all_queries"
FOLDER = ROOT / "data/08_reporting/digits/comparison" / NAME
UPDATES = ("kcfu", "fedavg")
FIGURES = ("scores", "critical_difference")
PAGE = ROOT / "docs/digits.md"


def compare(seeds: str, run_missing: bool) -> None:
    """Run what is missing, and make the report."""
    queries = ",".join(sorted(set(QUERIES) - {"compose"}))
    section = {"name": NAME, "queries": f"[{queries}]", "updates": f"[{','.join(UPDATES)}]", "seeds": seeds}
    section |= {"baseline": "random", "run_missing": str(run_missing).lower()}
    params = ",".join(f"compare.{key}={value}" for key, value in section.items())
    done = subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--pipeline", "compare", "--params", params], cwd=ROOT, check=False
    )
    if done.returncode:
        raise SystemExit(done.returncode)


def page() -> str:
    """Return the page, made of the comparison's tables alone."""
    ranking = pd.read_csv(FOLDER / "ranking.csv").set_index("strategy")
    against = pd.read_csv(FOLDER / "against_baseline.csv").set_index("strategy")
    found = json.loads((FOLDER / "comparison.json").read_text(encoding="utf-8"))
    lines = [
        "# Every query on digits",
        "",
        "This page compares every query on scikit-learn's digits, in the default protocol, under the updates KCFU and",
        f"FedAvg, over {found['seeds']} seeds. `python benchmarks/digits.py` makes it.",
        "",
        "- *AULC*: area under the learning curve in percent, mean ± standard deviation over the seeds.",
        "- *above random*: difference to `random` under the same update, in points, paired by seed (Hodges-Lehmann,",
        "  with its 95 % interval).",
        "- *p*: of the one-sided Wilcoxon test, corrected by Holm over all comparisons with `random`. Below 0.05 the",
        "  lead is more than luck.",
        "",
        "| query | " + " | ".join(f"{name}: AULC | above random | p" for name in UPDATES) + " |",
        "|---|" + "---|" * (3 * len(UPDATES)),
    ]
    first = ranking[ranking.index.str.endswith(f"-{UPDATES[0]}")].sort_values("aulc", ascending=False)
    for strategy in first.index:
        query = strategy.removesuffix(f"-{UPDATES[0]}")
        cells = [cell for update in UPDATES for cell in _cells(f"{query}-{update}", ranking, against)]
        lines.append(f"| `{query}` | " + " | ".join(cells) + " |")
    lines += ["", found["title"] + ".", ""]
    lines += [f"![{name.replace('_', ' ')}](digits_{name}.svg)" for name in FIGURES]
    return "\n".join(lines) + "\n"


def _cells(strategy: str, ranking: pd.DataFrame, against: pd.DataFrame) -> tuple[str, str, str]:
    """Return a strategy's AULC, difference and p value, as the table shows them."""
    if strategy not in ranking.index:
        return "not run", "", ""
    own = ranking.loc[strategy]
    aulc = f"{100 * own.aulc:.2f} ± {100 * own.aulc_std:.2f}"
    if strategy not in against.index:
        return aulc, "", ""
    row = against.loc[strategy]
    interval = "" if pd.isna(row.low) else f" [{100 * row.low:+z.2f}, {100 * row.high:+z.2f}]"
    return aulc, f"{100 * row.difference:+z.2f}{interval}", f"{row.p_holm:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-9")
    parser.add_argument("--report", action="store_true", help="run nothing, report on what is there")
    given = parser.parse_args()
    compare(given.seeds, not given.report)
    PAGE.write_text(page(), encoding="utf-8")
    for name in FIGURES:
        shutil.copy(FOLDER / f"{name}.svg", PAGE.with_name(f"digits_{name}.svg"))
    print(f"Written to {PAGE}")


if __name__ == "__main__":
    main()

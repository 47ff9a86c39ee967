"""The table in docs/queries.md, made by `COMMAND`.

What a query needs is not written down by hand: each chooses from a small pool that takes note of what it asks for.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kafal_pipeline.common.files import write_text
from kafal_pipeline.common.registry import create
from kafal_pipeline.query import QUERIES
from kafal_pipeline.query.base import ScoreQuery, summarises
from kafal_pipeline.query.pool import Head, Outputs, PoolView, QueryModel
from option_cells import options_of

COMMAND = "python tools/query_table.py docs/queries.md benchmarks/results/queries.json"
BEGIN, END = f"<!-- generated: {COMMAND} -->", "<!-- end -->"
CLASSES, WIDTH, SAMPLES, LABELLED = 3, 4, 12, 6


def needs(query: Any) -> list[str]:
    """Return what a query asks for when it chooses, in words."""
    models: set[str] = set()
    labelled: set[str] = set()

    def forward(kind: QueryModel, wanted: NDArray[np.int64]) -> Outputs:
        (labelled if wanted.min() >= SAMPLES else models).add(kind)
        values = torch.arange(len(wanted) * WIDTH, dtype=torch.float64).reshape(-1, WIDTH).sin()
        return Outputs(values[:, :CLASSES] * (2 if kind == "local" else 1), values)

    def head(kind: QueryModel) -> Head:
        models.add(kind)
        return Head(torch.eye(CLASSES, WIDTH), torch.zeros(CLASSES))

    known = np.arange(SAMPLES, SAMPLES + LABELLED)
    pool = PoolView(0, np.arange(SAMPLES), known, known % CLASSES, CLASSES, forward, head)
    if summarises(query):
        pool = replace(pool, summaries={0: query.summary(pool)})
    query.select(pool, 3, np.random.default_rng(0))
    found = sorted(models | labelled)
    found += ["labelled samples' outputs"] if labelled else []
    found += ["a summary of each client"] if summarises(query) else []
    found += ["watched training"] if getattr(query, "watched_samples", 0) else []
    return found


def table(costs: dict[str, Any]) -> str:
    """Return the table in Markdown; `costs` is what ``benchmarks/queries.py`` measured."""
    lines = [
        "| query | what it takes | options | needs | score | seconds | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in QUERIES.items():
        query = create("query", name, {}, QUERIES)
        asked = "what its parts need" if name == "compose" else ", ".join(needs(query)) or "nothing"
        score = "yes" if isinstance(query, ScoreQuery) else ""
        cells = [f"`{name}`", entry.summary, options_of(query), asked, score, *_cost(costs["queries"].get(name))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cost(figures: dict[str, Any] | None) -> tuple[str, str]:
    if figures is None:
        return "not measured", "not measured"
    return f"{figures['seconds']:.1f}", f"{figures['megabytes']:.0f}"


def renewed(text: str, costs: dict[str, Any]) -> str:
    """Return the page with its table made again."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(costs)}\n{END}{rest.split(END)[1]}"


def main(page: str, results: str) -> None:
    """Bring the page up to date."""
    path = Path(page)
    costs = json.loads(Path(results).read_text(encoding="utf-8"))
    write_text(path, renewed(path.read_text(encoding="utf-8"), costs))


if __name__ == "__main__":
    main(*sys.argv[1:])

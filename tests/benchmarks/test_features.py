"""The benchmark of features, on a few of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_it_measures_every_pair(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import features

    monkeypatch.setattr(features, "PAIRS", (("random", "ridge"), ("ksas", "fedavg")))
    out = tmp_path / "features.json"
    monkeypatch.setattr(sys, "argv", ["features.py", "--train=2000", "--test=50", "--width=8", f"--out={out}"])
    features.main()
    found = json.loads(out.read_text())
    assert set(found["runs"]) == {"random-ridge", "ksas-fedavg"}
    assert all(len(run["cycles"]) == 6 and run["seconds_a_cycle"] > 0 for run in found["runs"].values())
    assert "random-ridge" in capsys.readouterr().out

"""The benchmark of training, where a processor cannot compute in bfloat16."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from kafal_pipeline.common.machine import processor

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """The benchmark as a function that returns its figures; nothing is measured."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import training

    class Engine:
        lacks = False

        def __init__(self, data, precision, setting):
            self.broken = self.lacks and precision == "bf16"

        def train(self, clients):
            if self.broken:
                raise RuntimeError("mkldnn_reorder_conv2d_weight: bf16 path needs the cpu support avx512bw")
            return 1

        def scores(self, size):
            return np.arange(size)

        def __enter__(self):
            return self

        def __exit__(self, *problem):
            pass

    class Data:
        train_images, train_labels, folder = np.zeros(1), np.zeros(50_000, dtype=int), tmp_path

    monkeypatch.setattr(training.contestants, "Engine", Engine)
    for name in ("as_written", "arithmetic", "score"):
        monkeypatch.setattr(training.published, name, lambda *given: 1)
    monkeypatch.setattr(training.published, "ready_batches", lambda *given: [(0,)])
    monkeypatch.setattr(training.measure, "peak_memory", lambda arguments: 1.0)
    monkeypatch.setattr(training.measure, "rate", lambda work: float(work()))
    monkeypatch.setattr(training.measure, "product_peak", lambda *given: 1.0)
    monkeypatch.setattr(training, "flops_a_sample", lambda: 1.0)
    monkeypatch.setattr(training, "load", lambda path, folder: Data)
    monkeypatch.setattr(training, "open_store", lambda *given: Data)

    def run(lacks):
        file = tmp_path / "here.json"
        monkeypatch.setattr(Engine, "lacks", lacks)
        monkeypatch.setattr(sys, "argv", ["training.py", "--turns", "2", "--output", str(file)])
        training.main()
        return json.loads(file.read_text())

    return run


def test_a_precision_that_the_processor_lacks_is_recorded_as_not_available(benchmark):
    whole, found = benchmark(lacks=False), benchmark(lacks=True)
    assert "bf16" not in whole
    assert found["bf16"].startswith("not available (RuntimeError: mkldnn_reorder_conv2d_weight")
    assert {key for key in whole if "bf16" not in key} == {key for key in found if "bf16" not in key}
    assert "ratio_score_bf16" in whole
    assert [key for key in found if "bf16" in key] == ["bf16"]


def test_the_processor_is_named(benchmark):
    assert benchmark(lacks=False)["processor"] == processor()

"""The training engine against the published code's way of working, on this machine, turn by turn.

    python benchmarks/training.py [--data data/01_raw/cifar10.npz] [--turns 3]

Prints a table and writes benchmarks/results/training.json. Without --data the images are noise of CIFAR-10's size: the
work is the same. Ratios are taken within one turn, so that a noisy machine disturbs both contestants alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

import measure
import published
from kafal_pipeline.config import Config, DatasetConfig, resolve
from kafal_pipeline.data import ImageData, open_store
from kafal_pipeline.federation.query_worker import QueryTask
from kafal_pipeline.federation.states import initial_state, to_arrays
from kafal_pipeline.federation.worker import TrainTask
from kafal_pipeline.federation.workers import Workers
from kafal_pipeline.training.devices import cores

CLIENTS = 4
STEPS = 10
POOL = 4000
RESULTS = Path(__file__).parent / "results" / "training.json"


def configuration(precision: str) -> Config:
    return resolve(
        {
            "query": "ksas",
            "partition": {"clients": CLIENTS},
            "training": {
                "local_epochs": 1,
                "batch_size": published.BATCH,
                "batches": "published",
                "lr": 0.1,
                "augmentation": {"flip": True, "crop_padding": 4},
                "precision": precision,
                "device": "cpu",
            },
        }
    )


class Engine:
    """Worker processes that stay, as they do in a run."""

    def __init__(self, data: ImageData, clients: list[tuple[np.ndarray, np.ndarray]], precision: str) -> None:
        self.data, self.clients = data, clients
        self.workers = Workers(data, configuration(precision))
        self.state = to_arrays(initial_state("resnet8", in_channels=3, num_classes=10, seed=0, cycle=0))
        self.other = to_arrays(initial_state("resnet8", in_channels=3, num_classes=10, seed=1, cycle=0))

    def train(self) -> int:
        labels = self.data.train_labels
        tasks = [
            TrainTask(client, 0, 1, self.state, None, 0, labelled, labels[labelled], unlabelled)
            for client, (labelled, unlabelled) in enumerate(self.clients)
        ]
        return sum(result.steps for result in self.workers.map("train", tasks)) * 2 * published.BATCH

    def scores(self) -> tuple[int, np.ndarray]:
        """Score `POOL` samples, divided among as many clients as there are processes."""
        labels = self.data.train_labels
        models = {"local": self.state, "global": self.other, "downloaded": self.other}
        parts = np.array_split(np.arange(POOL), self.workers.count)
        known = np.arange(POOL, POOL + 500)
        tasks = [QueryTask(c, 1, len(part), known, labels[known], part, models) for c, part in enumerate(parts)]
        scores = np.empty(POOL)
        for selection in (answer.selection for answer in self.workers.map("select", tasks)):
            scores[selection.samples] = selection.scores
        return POOL, scores


def flops_a_sample() -> float:
    """Floating-point operations of one training sample, counted by PyTorch over one step."""
    batch = (torch.rand(8, 3, 32, 32), torch.arange(8), torch.rand(8, 3, 32, 32))
    student, teacher, optimizer = published.new_client()
    with FlopCounterMode(display=False) as counter:
        published.step(student, teacher, optimizer, batch, torch.ones(10))
    return counter.get_total_flops() / 16


def load(path: str | None, folder: Path) -> ImageData:
    if path is None:
        rng = np.random.default_rng(0)
        path = str(folder / "noise.npz")
        images, labels = rng.integers(0, 256, (50_000, 32, 32, 3), dtype=np.uint8), np.arange(50_000) % 10
        np.savez(path, train_images=images, train_labels=labels, test_images=images[:10], test_labels=labels[:10])
    return open_store(DatasetConfig(name="benchmark", path=path), folder, folder / "images")


def turn(data: ImageData, engines: dict[str, Engine], clients: list, batches: list) -> dict[str, float]:
    """One measurement of every contestant, one right after the other."""
    images, labels = np.asarray(data.train_images), data.train_labels
    plain = [batch[0] for batch in batches] * (POOL // published.BATCH // len(batches))
    rates = {
        "published": measure.rate(lambda: published.as_written(images, labels, clients[:2])),
        "arithmetic": measure.rate(lambda: published.arithmetic(batches)),
        "fp32": measure.rate(engines["fp32"].train),
        "bf16": measure.rate(engines["bf16"].train),
        "plain_score": measure.rate(lambda: published.score(plain)),
        "score_fp32": measure.rate(lambda: engines["fp32"].scores()[0]),
        "score_bf16": measure.rate(lambda: engines["bf16"].scores()[0]),
    }
    peak = measure.product_peak(torch.float32, cores())
    work = flops_a_sample() * 1e-9
    return {
        **{f"{name}_samples_per_second": value for name, value in rates.items()},
        "product_peak_fp32_gflops": peak,
        "ratio_fp32_published": rates["fp32"] / rates["published"],
        "ratio_fp32_arithmetic": rates["fp32"] / rates["arithmetic"],
        "ratio_bf16_published": rates["bf16"] / rates["published"],
        "peak_fraction_fp32": rates["fp32"] * work / peak,
        "ratio_score_fp32": rates["score_fp32"] / rates["plain_score"],
        "ratio_score_bf16": rates["score_bf16"] / rates["plain_score"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="an .npz with MedMNIST's keys and 32x32 colour images")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = load(options.data, Path(folder))
        order = np.random.default_rng(0).permutation(len(data.train_labels))
        size = published.BATCH * STEPS
        clients = [(np.sort(part[:size]), np.sort(part[size:])) for part in np.array_split(order, 10)[:CLIENTS]]
        batches = published.ready_batches(np.asarray(data.train_images), data.train_labels, STEPS)
        with measure.PeakMemory() as memory:
            engines = {precision: Engine(data, clients, precision) for precision in ("fp32",)}
            engines["fp32"].train()
        engines["bf16"] = Engine(data, clients, "bf16")
        engines["bf16"].train()
        turns = [turn(data, engines, clients, batches) for _ in range(options.turns)]
        exact, fast = (engines[precision].scores()[1] for precision in ("fp32", "bf16"))
        for engine in engines.values():
            engine.workers.close()
    results = {
        key: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for key in turns[0]
        if (values := [item[key] for item in turns])
    }
    results["peak_memory_mb"] = memory.megabytes
    results["score_spearman_bf16"] = float(stats.spearmanr(exact, fast).statistic)
    results["processes"], results["torch"], results["turns"] = cores(), torch.__version__, options.turns
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    for key, value in results.items():
        shown = (
            f"{value['median']:10.3f}  ({value['min']:.3f} .. {value['max']:.3f})" if isinstance(value, dict) else value
        )
        print(f"{key:34s} {shown}")
    print(f"Written to {RESULTS}")


if __name__ == "__main__":
    main()

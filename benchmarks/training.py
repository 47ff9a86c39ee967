"""The training engine against the published code's way of working, on this machine, turn by turn.

    python benchmarks/training.py [--data data/01_raw/cifar10.npz] [--turns 3]

Prints a table and writes benchmarks/results/training.json. Without --data the images are noise of CIFAR-10's size: the
work is the same. Ratios are taken within one turn, so that a noisy machine disturbs both contestants alike, and every
other turn goes through the contestants backwards. The peak of matrix products, which `peak_fraction_fp32` divides by,
is the mean of one right before and one right after the rate that is divided. Memory is measured in turns too, before
the others: pages that the engines' processes share with those that are looked at would count for less.

Two kinds of work, both in batches of 128 labelled and 128 unlabelled images: an epoch of clients as they are in cycle 0
of the published protocol (503 labelled images; `..._published`), where the loader processes cost most, and one of the
mean client of each of its six cycles (503 to 1,754; `..._published_all_cycles`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

import contestants
import measure
import published
from kafal_pipeline.common.machine import cores
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import ImageData, open_store

CIFAR = published.Setting(batch=128, flip=True, padding=4)
DIGITS = published.Setting(batch=16, flip=False, padding=1)
LABELLED = (503, 755, 1002, 1252, 1503, 1754)
CLIENT = 5000
POOL = 18_000
RESULTS = Path(__file__).parent / "results" / "training.json"


def load(path: str | None, folder: Path) -> ImageData:
    """Return CIFAR-10, or noise of its size."""
    if path is None:
        rng = np.random.default_rng(0)
        path = str(folder / "noise.npz")
        images, labels = rng.integers(0, 256, (50_000, 32, 32, 3), dtype=np.uint8), np.arange(50_000) % 10
        np.savez(path, train_images=images, train_labels=labels, test_images=images[:10], test_labels=labels[:10])
    return open_store(DatasetConfig(name="benchmark", path=path), folder, folder / "images")


def clients_of(size: int, labelled: tuple[int, ...], samples: int) -> list[published.Client]:
    """Cut a shuffle of the training set into clients of `samples` images, some of them labelled."""
    order = np.random.default_rng(0).permutation(size)
    clients = []
    for index, count in enumerate(labelled):
        own = order[index * samples : (index + 1) * samples]
        clients.append(published.Client(np.sort(own[:count]), np.sort(own[count:])))
    return clients


def flops_a_sample() -> float:
    """Floating-point operations of one training sample, counted by PyTorch over one step."""
    batch = (torch.rand(8, 3, 32, 32), torch.arange(8), torch.rand(8, 3, 32, 32))
    with FlopCounterMode(display=False) as counter:
        published.Contestant().step(batch, torch.ones(10))
    return counter.get_total_flops() / 16


def in_turn(works: dict[str, Callable[[], int]], turn: int, beside: str) -> tuple[dict[str, float], float]:
    """Return the rate of each work, and the peak of products around that of `beside`; backwards in odd turns."""
    rates, peaks = {}, []
    for name in list(works)[:: -1 if turn % 2 else 1]:
        if name == beside:
            peaks.append(measure.product_peak(torch.float32, cores()))
        rates[name] = measure.rate(works[name])
        if name == beside:
            peaks.append(measure.product_peak(torch.float32, cores()))
    return rates, statistics.mean(peaks)


def cifar_turns(data: ImageData, turns: int) -> Iterator[dict[str, float]]:
    """Yield one measurement of every contestant on CIFAR-10's protocol, one right after the other."""
    images, labels = np.asarray(data.train_images), data.train_labels
    clients = clients_of(len(labels), LABELLED, CLIENT)
    first = clients_of(len(labels), LABELLED[:1] * 6, CLIENT)
    batches = published.ready_batches(images, labels, 10, CIFAR)
    plain = [batch[0] for batch in batches] * (POOL // CIFAR.batch // len(batches))
    contestant = published.Contestant()
    work = flops_a_sample() * 1e-9
    with contestants.Engine(data, "fp32", CIFAR) as fp32, contestants.Engine(data, "bf16", CIFAR) as bf16:
        for engine in (fp32, bf16):
            engine.train(clients[:2])  # warm, as its processes stay
        works: dict[str, Callable[[], int]] = {
            "published": lambda: published.as_written(images, labels, first, CIFAR),
            "fp32": lambda: fp32.train(3 * first),
            "bf16": lambda: bf16.train(3 * first),
            "published_all_cycles": lambda: published.as_written(images, labels, clients, CIFAR),
            "fp32_all_cycles": lambda: fp32.train(2 * clients),
            "bf16_all_cycles": lambda: bf16.train(2 * clients),
            "arithmetic": lambda: published.arithmetic(batches, contestant, 2),
            "plain_score": lambda: published.score(plain),
            "score_fp32": lambda: len(fp32.scores(POOL)),
            "score_bf16": lambda: len(bf16.scores(POOL)),
        }
        for turn in range(turns):
            rates, peak = in_turn(works, turn, "fp32_all_cycles")
            spearman = stats.spearmanr(fp32.scores(POOL), bf16.scores(POOL)).statistic
            yield {
                **{f"{name}_samples_per_second": rates[name] for name in works},
                "product_peak_fp32_gflops": peak,
                "ratio_fp32_published": rates["fp32"] / rates["published"],
                "ratio_fp32_published_all_cycles": rates["fp32_all_cycles"] / rates["published_all_cycles"],
                "ratio_fp32_arithmetic": rates["fp32_all_cycles"] / rates["arithmetic"],
                "ratio_bf16_published": rates["bf16"] / rates["published"],
                "ratio_bf16_published_all_cycles": rates["bf16_all_cycles"] / rates["published_all_cycles"],
                "peak_fraction_fp32": rates["fp32_all_cycles"] * work / peak,
                "ratio_score_fp32": rates["score_fp32"] / rates["plain_score"],
                "ratio_score_bf16": rates["score_bf16"] / rates["plain_score"],
                "score_spearman_bf16": float(spearman),
            }


def digits_turns(folder: Path, turns: int) -> Iterator[dict[str, float]]:
    """Yield measurements on the embedded digits: five clients with the default run's mean numbers of labels."""
    data = open_store(DatasetConfig(), folder, folder / "digits")
    images, labels = np.asarray(data.train_images), data.train_labels
    clients = clients_of(len(labels), (30, 45, 60, 75, 100), 280)
    with contestants.Engine(data, "fp32", DIGITS) as engine:
        engine.train(clients)
        works: dict[str, Callable[[], int]] = {
            "digits_published": lambda: published.as_written(images, labels, clients, DIGITS),
            "digits": lambda: engine.train(10 * clients),
        }
        for turn in range(turns):
            rates = {name: measure.rate(works[name]) for name in list(works)[:: -1 if turn % 2 else 1]}
            yield {
                **{f"{name}_samples_per_second": rates[name] for name in works},
                "ratio_digits_published": rates["digits"] / rates["digits_published"],
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="an .npz with MedMNIST's keys and 32x32 colour images")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = load(options.data, folder)
        program = [str(Path(__file__).with_name("contestants.py")), str(data.folder)]
        memory = [measure.peak_memory(program) for _ in range(options.turns)]
        turns = [
            first | second
            for first, second in zip(cifar_turns(data, options.turns), digits_turns(folder, options.turns), strict=True)
        ]
    results: dict[str, object] = {
        key: measure.spread(values) for key in turns[0] if (values := [item[key] for item in turns])
    }
    results |= {
        "peak_memory_mb": measure.spread(memory),
        "processes": cores(),
        "torch": torch.__version__,
        "turns": options.turns,
    }
    measure.write(RESULTS, results)


if __name__ == "__main__":
    main()

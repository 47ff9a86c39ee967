"""The training engine against the published code's way of working, on this machine, turn by turn.

    python benchmarks/training.py [--data data/01_raw/cifar10.npz] [--turns 3] [--output FILE]

Prints a table and writes benchmarks/results/training.json, which names the processor; --output keeps a file for each
kind of processor. A precision that it lacks is recorded as not available. Without --data the images are noise of
CIFAR-10's size: the work is the same. Ratios are taken within one turn, so that a noisy machine disturbs both
contestants alike, and every other turn goes through the contestants backwards. The peak of matrix products, which
`peak_fraction_fp32` divides by, is the mean of one right before and one right after the rate that is divided. Memory
is measured in turns too, before the others: pages that the engines' processes share with those that are looked at
would count for less.

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
from kafal_pipeline.common.machine import cores, processor
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
        return measure.noise(folder)
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


def problem_of(engine: contestants.Engine, clients: list[published.Client]) -> str | None:
    """Warm an engine, whose processes stay; return why it cannot compute on this processor, or None if it can."""
    try:
        engine.train(clients[:2])
        engine.scores(1000)
    except Exception as error:  # noqa: BLE001 - PyTorch raises what it likes for what a processor lacks
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return None


def works_in(precision: str, engine: contestants.Engine, first: list, clients: list) -> dict[str, Callable[[], int]]:
    """Return what is measured in one precision."""
    return {
        precision: lambda: engine.train(3 * first),
        f"{precision}_all_cycles": lambda: engine.train(2 * clients),
        f"score_{precision}": lambda: len(engine.scores(POOL)),
    }


def ratios_in(precision: str, rates: dict[str, float]) -> dict[str, float]:
    """Return the rates of one precision over the published way's."""
    return {
        f"ratio_{precision}_published": rates[precision] / rates["published"],
        f"ratio_{precision}_published_all_cycles": rates[f"{precision}_all_cycles"] / rates["published_all_cycles"],
        f"ratio_score_{precision}": rates[f"score_{precision}"] / rates["plain_score"],
    }


def cifar_turns(data: ImageData, turns: int, lacking: dict[str, str]) -> Iterator[dict[str, float]]:
    """Yield one measurement of every contestant on CIFAR-10's protocol, one right after the other.

    Why bfloat16 is not available is put into `lacking`, where it is not.
    """
    images, labels = np.asarray(data.train_images), data.train_labels
    clients = clients_of(len(labels), LABELLED, CLIENT)
    first = clients_of(len(labels), LABELLED[:1] * 6, CLIENT)
    batches = published.ready_batches(images, labels, 10, CIFAR)
    plain = [batch[0] for batch in batches] * (POOL // CIFAR.batch // len(batches))
    contestant = published.Contestant()
    work = flops_a_sample() * 1e-9
    with contestants.Engine(data, "fp32", CIFAR) as fp32, contestants.Engine(data, "bf16", CIFAR) as bf16:
        fp32.train(clients[:2])
        if problem := problem_of(bf16, clients):
            lacking["bf16"] = f"not available ({problem})"
        works: dict[str, Callable[[], int]] = {
            "published": lambda: published.as_written(images, labels, first, CIFAR),
            "published_all_cycles": lambda: published.as_written(images, labels, clients, CIFAR),
            **works_in("fp32", fp32, first, clients),
            **({} if lacking else works_in("bf16", bf16, first, clients)),
            "arithmetic": lambda: published.arithmetic(batches, contestant, 2),
            "plain_score": lambda: published.score(plain),
        }
        for turn in range(turns):
            rates, peak = in_turn(works, turn, "fp32_all_cycles")
            measured = {
                **{f"{name}_samples_per_second": rates[name] for name in works},
                "product_peak_fp32_gflops": peak,
                **ratios_in("fp32", rates),
                "ratio_fp32_arithmetic": rates["fp32_all_cycles"] / rates["arithmetic"],
                "peak_fraction_fp32": rates["fp32_all_cycles"] * work / peak,
            }
            if not lacking:
                measured |= ratios_in("bf16", rates)
                spearman = stats.spearmanr(fp32.scores(POOL), bf16.scores(POOL)).statistic
                measured["score_spearman_bf16"] = float(spearman)
            yield measured


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
            rates = measure.in_turn(works, turn)
            yield {
                **{f"{name}_samples_per_second": rates[name] for name in works},
                "ratio_digits_published": rates["digits"] / rates["digits_published"],
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="an .npz with MedMNIST's keys and 32x32 colour images")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    lacking: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = load(options.data, folder)
        program = [str(Path(__file__).with_name("contestants.py")), str(data.folder)]
        memory = [measure.peak_memory(program) for _ in range(options.turns)]
        turns = [
            first | second
            for first, second in zip(
                cifar_turns(data, options.turns, lacking), digits_turns(folder, options.turns), strict=True
            )
        ]
    results = measure.spreads(turns) | {
        **lacking,
        "peak_memory_mb": measure.spread(memory),
        "processor": processor(),
        "processes": cores(),
        "torch": torch.__version__,
        "turns": options.turns,
    }
    measure.write(options.output, results)


if __name__ == "__main__":
    main()

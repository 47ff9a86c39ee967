"""What the machine can do, and what a process tree takes."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import ImageData, open_store


def rate(work: Callable[[], int]) -> float:
    """Samples a second of a piece of work that returns its number of samples."""
    start = time.perf_counter()
    samples = work()
    return samples / (time.perf_counter() - start)


def in_turn(works: Mapping[str, Callable[[], int]], turn: int) -> dict[str, float]:
    """Samples a second of each piece of work, backwards in odd turns."""
    return {name: rate(works[name]) for name in list(works)[:: -1 if turn % 2 else 1]}


def noise(folder: Path) -> ImageData:
    """Return 50,000 noise images of CIFAR-10's size, in a store in `folder`."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (50_000, 32, 32, 3), dtype=np.uint8), np.arange(50_000) % 10
    path = folder / "noise.npz"
    np.savez(path, train_images=images, train_labels=labels, test_images=images[:10], test_labels=labels[:10])
    return open_store(DatasetConfig(name="benchmark", path=str(path)), folder, folder / "images")


def product_peak(dtype: torch.dtype, threads: int, size: int = 1024, seconds: float = 2.0) -> float:
    """Measured GFLOP/s of square matrix products, one product a core side by side."""
    pairs = [(torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)) for _ in range(threads)]
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def work(pair: tuple[torch.Tensor, torch.Tensor]) -> int:
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            torch.mm(*pair)
            count += 1
        return count

    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, pairs))  # warm
            start = time.perf_counter()
            products = sum(pool.map(work, pairs))
            return 2e-9 * size**3 * products / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)


def peak_memory(arguments: list[str]) -> float:
    """Largest memory of a Python program and its children while it runs, MB; pages that they share count once."""
    import psutil  # the rest serves machines that have none

    program = psutil.Popen([sys.executable, "-W", "ignore", *arguments])
    peak = 0
    while program.poll() is None:
        total = 0
        for process in [program, *program.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except (psutil.Error, OSError):
                continue
        peak = max(peak, total)
        time.sleep(0.2)
    if program.returncode:
        raise RuntimeError(f"{arguments} ended with exit code {program.returncode}")
    return peak / 1e6


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of the turns."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def spreads(rows: Sequence[Mapping[str, float]]) -> dict[str, object]:
    """Spread of each figure over the turns, a row each."""
    return {key: spread([row[key] for row in rows]) for key in rows[0]}


def write(file: Path, results: Mapping[str, object]) -> None:
    """Write the results as JSON, print them, and say where they are."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(results, indent=2) + "\n")
    show(results)
    print(f"Written to {file}")


def show(results: Mapping[str, object]) -> None:
    """Print a line a figure: the median of the turns, with the smallest and the largest."""
    for key, value in results.items():
        if isinstance(value, dict):
            print(f"{key:38s} {value['median']:10.3f}  ({value['min']:.3f} .. {value['max']:.3f})")
        else:
            print(f"{key:38s} {value}")

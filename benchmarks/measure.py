"""What the machine can do, and what a process tree takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import torch


def rate(work: Callable[[], int]) -> float:
    """Samples a second of a piece of work that returns its number of samples."""
    start = time.perf_counter()
    samples = work()
    return samples / (time.perf_counter() - start)


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


class PeakMemory:
    """Largest memory of this process and its children while the block runs, MB; shared pages count once."""

    def __enter__(self) -> PeakMemory:
        self.megabytes = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.3):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.megabytes = max(self.megabytes, total / 2**20)

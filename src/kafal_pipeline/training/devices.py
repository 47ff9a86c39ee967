"""Chooses the device to compute on, and the number of threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kafal_pipeline.common.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device of that name, UserError if it is not there; ``auto`` is CUDA if there is any, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    there += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if name not in there:
        raise UserError(
            f"training.device: found {name!r}, but this machine has only: {', '.join(there)}. Use 'auto' or 'cpu'."
        )
    return torch.device(name)


@contextmanager
def single_thread() -> Iterator[None]:
    """Compute with one thread, so that sums round the same however many processes share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

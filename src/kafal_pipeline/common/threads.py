"""Sets the number of threads that PyTorch computes with."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def single_thread() -> Iterator[None]:
    """Compute with one thread, so that sums round the same however many processes share the machine."""
    import torch  # only where something is computed

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Chooses the device to compute on."""

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

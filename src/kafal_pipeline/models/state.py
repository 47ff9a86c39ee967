"""Model states in the form in which they are sent between processes and written to disk."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kafal_pipeline.common.randomness import Purpose, torch_generator
from kafal_pipeline.config import ModelConfig
from kafal_pipeline.models.factory import build

State = dict[str, Tensor]
Arrays = dict[str, NDArray[np.generic]]


def to_arrays(state: Mapping[str, Tensor]) -> Arrays:
    """Copy a state to contiguous numpy arrays, which pickle without shared-memory files."""
    return {name: tensor.detach().cpu().contiguous().numpy().copy() for name, tensor in state.items()}


def read_only(arrays: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """Return views of arrays that cannot be written through: others use them too."""
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def to_state(arrays: Mapping[str, NDArray[np.generic]]) -> State:
    """Return tensors that share the arrays' memory."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def initial_state(
    model: ModelConfig | str,
    *,
    in_channels: int,
    num_classes: int,
    seed: int,
    cycle: int,
    image_size: Sequence[int] | None = None,
) -> State:
    """Return weights, freshly drawn or pretrained; all strategies of one seed begin a cycle with the same."""
    generator = torch_generator(seed, Purpose.MODEL, cycle)
    network = build(model, in_channels=in_channels, num_classes=num_classes, image_size=image_size, generator=generator)
    return to_state(to_arrays(network.state_dict()))


def size_in_bytes(state: Mapping[str, Tensor]) -> int:
    """Return what sending the state once would cost."""
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())

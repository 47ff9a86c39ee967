"""Loads initial weights from a file instead of drawing them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from kafal_pipeline.common.errors import UserError

SHOWN = 4  # names of tensors in a message


@torch.no_grad()
def load_pretrained(network: nn.Module, path: Path, key: str = "model.pretrained") -> None:
    """Copy the tensors of a safetensors file into `network`; its head stays where the file's has another shape or none.

    Raises `UserError` unless the file holds every other floating-point tensor of the network, and nothing else, under
    its name, with its shape, finite. `key`: the parameter that names the file.
    """
    from safetensors import SafetensorError  # only where weights are loaded
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{key}: there is no file {path.absolute()}.")
    try:
        given = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{key}: {path} is no safetensors file ({error}).") from None
    own = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    given = {name: tensor for name, tensor in given.items() if tensor.is_floating_point()}
    head = {name for name in own if name.startswith("head.")}
    if any(name not in given or given[name].shape != own[name].shape for name in head):
        own = {name: tensor for name, tensor in own.items() if name not in head}
        given = {name: tensor for name, tensor in given.items() if name not in head}
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    problems = [
        _list("missing", [name for name in own if name not in given]),
        _list("unexpected", [name for name in given if name not in own]),
        _list("of another shape", shapes),
        _list("with values that are no numbers", [name for name in given if not given[name].isfinite().all()]),
    ]
    if any(problems):
        found = "; ".join(problem for problem in problems if problem)
        raise UserError(
            f"{key}: the tensors of {path} are not those of this network. {found}. "
            "Only `head` may differ; the others must have the network's names and shapes."
        )
    for name, tensor in own.items():
        tensor.copy_(given[name])


def _list(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what.capitalize()}: {', '.join(names[:SHOWN])}{more}"

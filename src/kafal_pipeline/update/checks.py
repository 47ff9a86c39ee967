"""Checks of what an update's methods return, where they return it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from kafal_pipeline.common.errors import NotAllowed, kind_of
from kafal_pipeline.update.base import State


def check_state(found: object, what: str, shapes: Mapping[str, torch.Size] | None = None) -> None:
    """Raise NotAllowed, with `what` as its name, unless `found` is tensors by name, those of `shapes` among them."""
    if not isinstance(found, Mapping):
        raise NotAllowed(f"{what} is {kind_of(found)}; allowed: a dict from names to tensors.")
    wrong = next((n for n, t in found.items() if not isinstance(n, str) or not isinstance(t, Tensor)), None)
    if wrong is not None:
        raise NotAllowed(f"{what} has {kind_of(found[wrong])} as {wrong!r}; allowed: tensors by name.")
    for name, shape in (shapes or {}).items():
        if name not in found:
            raise NotAllowed(f"{what} lacks {name!r}, a tensor of shape {tuple(shape)}.")
        if found[name].shape != shape:
            raise NotAllowed(f"{what} has {name!r} of shape {tuple(found[name].shape)}; allowed: {tuple(shape)}.")


def checked_pair(found: object, method: str, *names: str) -> tuple[State, State]:
    """Return what `finish` or `aggregate` returned if it is two states, called `names` in messages."""
    if not isinstance(found, tuple) or len(found) != len(names):
        raise NotAllowed(f"`{method}` returned {kind_of(found)}; allowed: a pair, {' and '.join(names)}.")
    for state, name in zip(found, names, strict=True):
        check_state(state, f"{name}, from `{method}`,")
    return found[0], found[1]


def checked_fit(found: object) -> tuple[float, State]:
    """Return what `fit` returned if it is a loss and a state."""
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[0], float):
        raise NotAllowed(
            f"`fit` returned {kind_of(found)}; allowed: a pair, the mean loss (float) and tensors by name."
        )
    check_state(found[1], "the sums, from `fit`,")
    return found[0], found[1]


def checked_aggregate(found: object, global_state: State) -> tuple[State, State]:
    """Return what `aggregate` returned if it is a model with the tensors of the global one, and another state."""
    model, server = checked_pair(found, "aggregate", "the model", "what the server keeps")
    what = "the model, from `aggregate`,"
    check_state(model, what, {name: tensor.shape for name, tensor in global_state.items()})
    for name, tensor in model.items():
        if name not in global_state:
            raise NotAllowed(f"{what} has {name!r}, which the global model has not.")
        if tensor.dtype != global_state[name].dtype:
            raise NotAllowed(f"{what} has {name!r} of type {tensor.dtype}; allowed: {global_state[name].dtype}.")
    return {name: tensor.detach() for name, tensor in model.items()}, server

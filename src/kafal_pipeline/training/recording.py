"""Records steps once and replays them.

On a GPU a step of a small network is hundreds of kernels that take longer to start than to run; a CUDA graph starts all
of them as one.
"""

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch
from torch import Tensor

from kafal_pipeline.common.errors import UserError

Inputs = tuple[Tensor | None, ...]
Function = Callable[..., None]


class Recording(Protocol):
    """A recorded function."""

    def replay(self) -> None:
        """Start the recorded work again, on the tensors it was recorded with."""


Recorder = Callable[[Callable[[], None]], Recording]  # records what a function does, without doing it


class Recordings:
    """Functions of tensors, each recorded at its second call and replayed from then on.

    The first call of a kind is done as it is: libraries choose algorithms and make workspaces then, which cannot be
    recorded. All tensors that the function uses besides its inputs must stay where they are in memory.

    `recorder`: does the recording. `most`: recordings kept; the one used longest ago gives way, since each holds memory
    of its own.
    """

    def __init__(self, recorder: Recorder, most: int = 32) -> None:
        self._recorder = recorder
        self._most = most
        self._kept: dict[Hashable, tuple[Recording, Inputs] | None] = {}

    def call(self, kind: Hashable, function: Function, *inputs: Tensor | None) -> None:
        """Do ``function(*inputs)``; calls of equal `kind` and equal shapes of inputs must do the same arithmetic."""
        key = (kind, tuple(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in inputs))
        if key not in self._kept:
            self._kept[key] = None
            function(*inputs)
            return
        recorded = self._kept.pop(key)
        if recorded is None:
            own = tuple(None if tensor is None else tensor.clone() for tensor in inputs)
            recorded = self._recorder(lambda: function(*own)), own
            while len(self._kept) >= self._most:  # old ones go after: the recorder has waited until none of them runs
                self._kept.pop(next(iter(self._kept)))
        self._kept[key] = recorded  # the last in the order of use
        recording, own_inputs = recorded
        for own_input, given in zip(own_inputs, inputs, strict=True):
            if own_input is not None and given is not None:
                own_input.copy_(given)
        recording.replay()


def cuda_recorder(stream: torch.cuda.Stream) -> Recorder:
    """Return a recorder of CUDA graphs that run on `stream`, one after another, so that they can share their memory.

    Replays draw from the generators' states at that time.
    """
    pool = torch.cuda.graph_pool_handle()

    def record(function: Callable[[], None]) -> Recording:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(stream.device)
        with torch.cuda.stream(stream):
            _capture(graph, function, pool)
        return graph

    return record


def _capture(graph: torch.cuda.CUDAGraph, function: Callable[[], None], pool: Any) -> None:
    """Record `function` on the current stream; UserError if it does what cannot be recorded."""
    # Only this thread is held to the rules of recording: others may watch the GPU meanwhile.
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        try:
            function()
        finally:
            graph.capture_end()  # fails too after a failed function, and then says less
    except RuntimeError as error:
        cause = error.__context__ or error
        if not isinstance(cause, RuntimeError):
            raise cause from None
        raise UserError(
            f"training.cuda_graphs: a training step could not be recorded ({str(cause).splitlines()[0]}). An update "
            "or model of your own must not wait for the GPU inside a step (.item(), .cpu(), print of a "
            "tensor); or set training.cuda_graphs=false."
        ) from cause

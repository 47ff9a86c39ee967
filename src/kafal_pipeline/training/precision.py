"""Arithmetic of forwards and backwards: float32, TF32 on a GPU, or bfloat16 where it is safe."""

import os

import torch
from torch import Tensor, nn

from kafal_pipeline.common.errors import UserError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # environment variable; without a fixed size cuBLAS chooses among algorithms
WORKSPACES = (":4096:8", ":16:8")  # sizes with which products are the same bits every time; the first is faster


class Autocast(nn.Module):
    """A network whose convolutions and products run in bfloat16; parameters, outputs and losses stay float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 logits ``(n, classes)``."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16, cache_enabled=False):
            logits: Tensor = self.network(images)
        return logits.float()

    def features(self, images: Tensor) -> Tensor:
        """Return float32 features ``(n, d)``."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16, cache_enabled=False):
            features: Tensor = self.network.features(images)  # type: ignore[operator]
        return features.float()

    @property
    def head(self) -> nn.Linear:
        """The network's last layer, applied in float32."""
        return self.network.head  # type: ignore[return-value]


def fast_bf16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16; a CPU without AVX-512 or AMX converts to float32 and back."""
    return device.type != "cpu" or (
        torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def in_precision(network: nn.Module, precision: str) -> nn.Module:
    """Return `network` as it computes in `precision`; its parameters are shared. ``tf32`` is a matter of `prepare`."""
    return Autocast(network) if precision == "bf16" else network


def prepare(device: torch.device, precision: str, *, deterministic: bool = False) -> None:
    """Set up a GPU; nothing on a CPU, which computes exact float32 and the same bits every time as it is.

    `precision`: ``fp32`` is exact float32, ``tf32`` rounds products' factors to 10 bits. `deterministic`: equal inputs
    give equal bits; operations that have no such form are then errors. Raises `UserError` if cuBLAS cannot be made
    deterministic any more, or the environment says that it should not be.
    """
    if device.type != "cuda":
        return
    if deterministic:
        _fix_workspace()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    # Shapes recur, so that the search for the fastest algorithm pays; it may find another one every time.
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)


def _fix_workspace() -> None:
    """Set the environment variable that cuBLAS reads when it starts."""
    found = os.environ.get(WORKSPACE)
    if found is None and not torch.cuda.is_initialized():
        os.environ[WORKSPACE] = WORKSPACES[0]
    elif found not in WORKSPACES:
        problem = "this process has used the GPU already without" if found is None else f"found {found!r} for"
        raise UserError(
            f"training.deterministic: {problem} the environment variable {WORKSPACE}. Set it to {WORKSPACES[0]} before "
            "the program starts, or set training.deterministic=false."
        )

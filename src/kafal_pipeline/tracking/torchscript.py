"""The final global model as TorchScript, made by the run itself, which has PyTorch in memory."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kafal_pipeline.common.files import replacing


def save_torchscript(
    path: Path,
    state: Path,
    model: Mapping[str, Any],
    image_shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Save a model with its normalisation as TorchScript, which loads without this package's code and without pickle.

    It takes ``.eval()`` and ``.to(device)`` like any module, which `torch.export`'s programs refuse.

    Parameters
    ----------
    path
        The file to write: a module that takes float32 ``(N, C, H, W)`` in [0, 1] and returns logits ``(N, K)``.
    state
        The model's parameters and buffers, a safetensors file.
    model
        ``name``, ``in_channels``, ``num_classes`` and those keys of the parameters' section that are not the default.
    image_shape
        ``[C, H, W]``.
    mean, std
        One number a channel, of pixels in [0, 1].

    Raises
    ------
    ValueError
        Where TorchScript cannot say what the model does: it depends on the images by more than arithmetic.
    CannotWrite
        If the disk is full or must not be written.
    """
    import torch
    from safetensors.torch import load_file

    from kafal_pipeline.config import ModelConfig
    from kafal_pipeline.models.factory import SHAPE, ImageClassifier, build

    network = build(
        ModelConfig.model_validate({key: value for key, value in model.items() if key not in SHAPE}),
        **{key: model[key] for key in SHAPE},
        image_size=image_shape[1:],
    )
    network.load_state_dict(load_file(state))
    classifier = ImageClassifier(network, mean, std).eval()
    with warnings.catch_warnings(record=True) as noted, torch.no_grad():  # noted, not shown: TorchScript is frozen
        warnings.simplefilter("always")
        # Its own check imports two seconds' worth of modules.
        traced = torch.jit.trace(classifier, torch.full((2, *image_shape), 0.5), check_trace=False)
        for warning in noted:
            if issubclass(warning.category, torch.jit.TracerWarning):
                raise ValueError(f"TorchScript has no decision that depends on the images: {warning.message}")
        images = torch.rand(3, *image_shape, generator=torch.Generator().manual_seed(0))
        for batch in (images, images[:1], torch.zeros_like(images), torch.ones_like(images)):
            if not torch.allclose(traced(batch), classifier(batch), rtol=1e-4, atol=1e-5, equal_nan=True):
                raise ValueError(
                    "its TorchScript form computes something else: does it depend on the images, or draw random "
                    "numbers?"
                )
        content = io.BytesIO()  # PyTorch's own writing says of a full disk what nobody understands
        torch.jit.save(traced, content)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())

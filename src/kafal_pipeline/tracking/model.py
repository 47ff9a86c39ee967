"""The final global model as an MLflow model, which `mlflow.pytorch.load_model` loads."""

from __future__ import annotations

import contextlib
import importlib.metadata
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODEL = "global_model"
"""The model's name in its run."""


def prepare() -> None:
    """Have MLflow look over the installed packages now: a second that the first model would wait for."""
    with contextlib.suppress(ImportError, AttributeError):  # not public: else the model waits
        from mlflow.utils.requirements_utils import (  # noqa: PLC0415 - imports mlflow, seconds
            _init_modules_to_packages_map,
        )

        _init_modules_to_packages_map()


def log_model(run_id: str, experiment_id: str, event: Mapping[str, Any]) -> str:
    """Log the model of a run and return its address, ``models:/...``.

    It is logged as TorchScript: such a model needs none of this package's code to load, is restored without unpickling
    objects, and takes ``.eval()`` and ``.to(device)`` like any module, which `torch.export`'s programs refuse.

    Parameters
    ----------
    run_id, experiment_id
        The run. The tracking address must have been set.
    event
        ``state``, a safetensors file; ``model`` with ``name``, ``in_channels``, ``num_classes`` and those keys of the
        parameters' section that are not the default; ``image_shape`` ``[C, H, W]``; ``mean`` and ``std``, one number a
        channel; ``classes``, the names. The logged model takes float32 ``(N, C, H, W)`` in [0, 1] and returns logits
        ``(N, K)``.
    """
    import mlflow.pytorch  # noqa: PLC0415 - seconds to import
    import numpy as np  # noqa: PLC0415 - only here
    import torch  # noqa: PLC0415 - seconds to import, and most deliveries hold no model
    from mlflow.models import Model, ModelSignature  # noqa: PLC0415 - seconds to import
    from mlflow.types import Schema, TensorSpec  # noqa: PLC0415 - seconds to import
    from safetensors.torch import load_file  # noqa: PLC0415 - imports torch

    from kafal_pipeline.config import ModelConfig  # noqa: PLC0415 - with what uses it
    from kafal_pipeline.models import ImageClassifier, build  # noqa: PLC0415 - imports torch
    from kafal_pipeline.models.factory import SHAPE  # noqa: PLC0415 - imports torch

    torch.set_num_threads(1)
    description = event["model"]
    network = build(
        ModelConfig.model_validate({key: value for key, value in description.items() if key not in SHAPE}),
        **{key: description[key] for key in SHAPE},
        image_size=event["image_shape"][1:],
    )
    network.load_state_dict(load_file(Path(event["state"])))
    classifier = ImageClassifier(network, event["mean"], event["std"]).eval()
    shape = tuple(event["image_shape"])
    example = np.full((2, *shape), 0.5, dtype=np.float32)
    images = torch.from_numpy(example)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is frozen, in favour of `torch.export`
        # Its own check imports two seconds' worth of modules.
        traced = torch.jit.trace(classifier, images, check_trace=False)
        other = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
        if not torch.allclose(traced(other), classifier(other), rtol=1e-4, atol=1e-5):
            raise ValueError("its TorchScript form computes something else: does it depend on what the images show?")
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *shape))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, description["num_classes"]))]),
    )
    # Without these MLflow infers them by running the model in a fresh process, for half a minute.
    requirements = [f"{package}=={importlib.metadata.version(package)}" for package in ("torch", "numpy")]
    mlflow.set_experiment(experiment_id=experiment_id)
    # `mlflow.pytorch.log_model` would end the run, or need it active in this process; `Model.log` takes its id.
    info = Model.log(
        artifact_path=None,
        flavor=mlflow.pytorch,
        run_id=run_id,
        name=MODEL,
        pytorch_model=traced,
        signature=signature,
        input_example=example,
        pip_requirements=requirements,
        metadata={"classes": list(event["classes"])},
        serialization_format="pickle",  # MLflow's name for "not torch.export"; TorchScript brings its own format
    )
    return str(info.model_uri)

"""The final global model as an MLflow model, which `mlflow.pytorch.load_model` loads."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

MODEL = "global_model"
STATE = "state_sha256"  # the model's tag that says which state it has
SOURCE = "mlflow.source.name"


class _TorchScript:
    """A flavor, as `Model.log` takes it, that saves what `mlflow.pytorch` would, of a model that is a file already.

    MLflow's own imports PyTorch, for a second or two of the run's end, and loads the model twice.
    """

    @staticmethod
    def save_model(
        path: str, mlflow_model: Model, script: Path, pytorch_version: str, signature: ModelSignature, **_options: Any
    ) -> None:
        """Write the model's folder at `path`. Options are those of `Model.log`, which hands on its own too."""
        # Without a build's label, such as +cu128, which package indexes do not have.
        versions = {name: importlib.metadata.version(name).partition("+")[0] for name in ("mlflow", "torch", "numpy")}
        data = Path(path).with_name("torchscript")
        data.mkdir()
        shutil.copyfile(script, data / "model.pth")
        # Needed by the loader, though TorchScript is read by PyTorch's own code.
        (data / "pickle_module_info.txt").write_text("mlflow.pytorch.pickle_module")
        where = f"data/{data.name}"  # to which `mlflow.pyfunc` copies it
        mlflow_model.add_flavor("pytorch", model_data=where, pytorch_version=pytorch_version, code=None)
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=mlflow_model,
            loader_module="mlflow.pytorch",
            data_path=str(data),
            pip_requirements=[f"{name}=={version}" for name, version in versions.items()],
            signature=signature,
            input_example=np.full((2, *signature.inputs.inputs[0].shape[1:]), 0.5, dtype=np.float32),
            model_config={"device": None},
        )


def log_model(
    client: mlflow.MlflowClient, run_id: str, experiment_id: str, script: Path, event: Mapping[str, Any]
) -> str:
    """Log the file `script` as the model of a run, as its event describes it, and return its address, ``models:/...``.

    An earlier attempt may have come to its end without having been noted, or have left an unfinished one, which is
    deleted. The tracker's address must have been set.
    """
    for earlier in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if earlier.tags.get(STATE) == event["state_sha256"]:
            if earlier.status == LoggedModelStatus.READY:
                return f"models:/{earlier.model_id}"
            client.delete_logged_model(earlier.model_id)
    images = TensorSpec(np.dtype(np.float32), (-1, *event["image_shape"]))
    logits = TensorSpec(np.dtype(np.float32), (-1, len(event["classes"])))
    # In the place of what MLflow would record: this helper's path, and a repository's address with its credentials.
    source = {SOURCE: client.get_run(run_id).data.tags.get(SOURCE, ""), "mlflow.source.git.repoURL": ""}
    mlflow.set_experiment(experiment_id=experiment_id)
    # `mlflow.pytorch.log_model` would end the run, or need it active in this process; `Model.log` takes its id.
    info = Model.log(
        artifact_path=None,
        flavor=_TorchScript,
        flavor_name="pytorch",
        run_id=run_id,
        name=MODEL,
        script=script,
        pytorch_version=event["pytorch_version"],
        signature=ModelSignature(inputs=Schema([images]), outputs=Schema([logits])),
        metadata={"classes": list(event["classes"])},
        tags={STATE: event["state_sha256"], **source},
        step=event["step"],
        validate_serving_input=False,  # it loads the model; `save_torchscript` has compared it with the network
    )
    return str(info.model_uri)

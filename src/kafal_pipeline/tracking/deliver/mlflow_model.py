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
from mlflow.models.utils import _save_example
from mlflow.types import Schema, TensorSpec
from mlflow.utils.environment import _mlflow_conda_env, _PythonEnv
from mlflow.utils.mlflow_tags import MLFLOW_GIT_REPO_URL, MLFLOW_SOURCE_NAME

MODEL = "global_model"
"""The model's name in its run."""

STATE = "state_sha256"
"""The model's tag that says which state it has."""


class _TorchScript:
    """A flavor, as `Model.log` takes it, that saves what `mlflow.pytorch` would, of a model that is a file already.

    MLflow's own imports PyTorch, for a second or two of the run's end, and loads the model twice.
    """

    @staticmethod
    def save_model(
        path: str,
        mlflow_model: Model,
        script: Path,
        pytorch_version: str,
        signature: ModelSignature,
        example: Any,
        **_options: Any,
    ) -> None:
        """Write the model's folder at `path`. Options are those of `Model.log`, which hands on its own too."""
        folder = Path(path)
        (folder / "data").mkdir(parents=True)
        shutil.copyfile(script, folder / "data" / "model.pth")
        # Needed by the loader, though TorchScript is read by PyTorch's own code.
        (folder / "data" / "pickle_module_info.txt").write_text("mlflow.pytorch.pickle_module")
        # Without a build's label, such as +cu128, which package indexes do not have.
        versions = {name: importlib.metadata.version(name).partition("+")[0] for name in ("mlflow", "torch", "numpy")}
        requirements = [f"{name}=={version}" for name, version in versions.items()]
        (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
        _mlflow_conda_env(str(folder / "conda.yaml"), additional_pip_deps=requirements, install_mlflow=False)
        _PythonEnv.current().to_yaml(str(folder / "python_env.yaml"))
        _save_example(mlflow_model, example, path)
        mlflow_model.signature = signature
        mlflow_model.add_flavor("pytorch", model_data="data", pytorch_version=pytorch_version, code=None)
        mlflow.pyfunc.add_to_model(
            mlflow_model,
            loader_module="mlflow.pytorch",
            data="data",
            pickle_module_name="mlflow.pytorch.pickle_module",
            conda_env="conda.yaml",
            python_env="python_env.yaml",
            model_config={"device": None},
        )
        mlflow_model.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        mlflow_model.save(str(folder / "MLmodel"))


def log_model(
    client: mlflow.MlflowClient, run_id: str, experiment_id: str, script: Path, event: Mapping[str, Any]
) -> str:
    """Log the model of a run and return its address, ``models:/...``.

    An earlier attempt may have come to its end without having been noted, or have left an unfinished one, which is
    deleted.

    Parameters
    ----------
    client
        Of the tracker, whose address must have been set.
    run_id, experiment_id
        The run.
    script
        The model as TorchScript, of `kafal_pipeline.tracking.torchscript`.
    event
        ``image_shape`` ``[C, H, W]``; ``classes``, the names; ``pytorch_version``, which saved the model;
        ``state_sha256``; ``step``, at which the model's own metrics are recorded.
    """
    for earlier in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if earlier.tags.get(STATE) == event["state_sha256"]:
            if earlier.status == LoggedModelStatus.READY:
                return f"models:/{earlier.model_id}"
            client.delete_logged_model(earlier.model_id)
    shape = tuple(event["image_shape"])
    classes = list(event["classes"])
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
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *shape))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(classes)))]),
        ),
        example=np.full((2, *shape), 0.5, dtype=np.float32),
        metadata={"classes": classes},
        # In the place of what MLflow would record: this helper's path, and a repository's address with its credentials.
        tags={
            STATE: event["state_sha256"],
            MLFLOW_SOURCE_NAME: client.get_run(run_id).data.tags.get(MLFLOW_SOURCE_NAME, ""),
            MLFLOW_GIT_REPO_URL: "",
        },
        step=event.get("step", 0),
        validate_serving_input=False,  # it loads the model; `save_torchscript` has compared it with the network
    )
    return str(info.model_uri)

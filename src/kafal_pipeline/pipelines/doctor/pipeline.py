"""The pipeline of the doctor."""

from pathlib import Path

from kedro.pipeline import Pipeline, node

from kafal_pipeline.pipelines.annotations import Parameters
from kafal_pipeline.pipelines.doctor.nodes import examine


def create_pipeline(root: Path = Path()) -> Pipeline:
    """Return the pipeline ``parameters -> nothing``, which prints what it finds in the project's folder `root`."""

    def doctor(parameters: Parameters) -> None:
        examine(parameters, root)

    return Pipeline([node(doctor, inputs="parameters", outputs=None, name="doctor.examine", tags=["doctor"])])

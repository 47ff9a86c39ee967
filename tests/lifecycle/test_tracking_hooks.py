"""A small pipeline with the project's node and data set names, run by Kedro's own runner."""

import json
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset

from kafal_pipeline.common.errors import Waiting
from kafal_pipeline.common.files import file_digest
from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.lifecycle.current_run import CurrentRun, Session
from kafal_pipeline.lifecycle.hooks import ProjectHooks
from kafal_pipeline.tracking import NullTracker, Tracker, record

PARAMETERS = {"cycles": 2, "federation": {"rounds": 2}}
RUN = "digits/ksas-kcfu/seed_0"


class Recorder(NullTracker):
    """Keeps what it is told, in order."""

    def __init__(self):
        self.calls = []

    def metrics(self, values, step, *, durable=False):
        self.calls.append(("metrics", dict(values), step))

    def tags(self, values):
        self.calls.append(("tags", dict(values)))

    def artifact(self, path, folder=""):
        self.calls.append(("artifact", path.name, folder))

    def model(self, state, **description):
        self.calls.append(("model", state.name, description))

    def finish(self, status, error=None, limit=60):
        self.calls.append(("finish", status, error))

    def abort(self, limit=15):
        self.calls.append(("abort",))

    def of(self, kind):
        return [call[1:] for call in self.calls if call[0] == kind]


def rounds(cycle):
    rows = [(cycle, round_, client, 1.0 + client) for round_ in range(2) for client in range(3)]
    return pd.DataFrame(rows, columns=["cycle", "round", "client", "loss"]).assign(device="cpu")


def metrics(cycle):
    accuracy = 0.5 + cycle / 4
    return {
        "cycle": cycle,
        "labels": 100 * (cycle + 1),
        "accuracy": accuracy,
        "gap": float("nan"),
        "per_class_accuracy": [accuracy, 1.0],
        "classes": ["0", "1"],
        "query_seconds": None,
    }


class Project:
    """A project folder, its catalog, its hooks and what they recorded."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.recorder, self.restarts = folder, Recorder(), []
        monkeypatch.setattr(Tracker, "start", self._start)
        run = CurrentRun()
        run.session, run._config = Session(folder), resolve(PARAMETERS)
        self.hooks = ProjectHooks(run)
        for name in ("_guard", "_saved", "_closing"):
            setattr(self.hooks, name, Mock())
        self.manager = _create_hook_manager()
        self.manager.register(self.hooks)
        split = folder / "data/03_primary/digits/seed_0/splits.json"
        pixels = np.zeros((4, 8, 9, 1), dtype=np.uint8)
        labels = np.zeros(4, dtype=np.int64)
        mean = np.array([0.5])
        self.catalog = DataCatalog(
            {
                "images": MemoryDataset(ImageData("digits", pixels, labels, pixels, labels, ("0", "1"), mean, mean)),
                "splits": JSONDataset(filepath=str(split)),
                "cycle_00.metrics": JSONDataset(filepath=str(folder / "metrics_00.json")),
                "summary": JSONDataset(filepath=str(folder / "data/08_reporting" / RUN / "summary.json")),
            }
        )
        self.split = split

    def _start(self, config, folder, project, restart=False, comparison=None, execution=""):
        self.restarts.append(restart)
        return self.recorder

    def pipeline(self, cycles=(0, 1), fail=False):
        def train(cycle):
            if fail:
                raise ValueError("no")
            return rounds(cycle)

        def report(*_):
            for name in ("figure.png", "table.csv", "notes.txt"):
                (self.folder / "data/08_reporting" / RUN / name).write_text("x")
            state = self.folder / "data/06_models" / RUN / "cycle_01/global_model.safetensors"
            state.parent.mkdir(parents=True, exist_ok=True)
            state.write_text("x")
            return {"aulc": 0.75}

        nodes = [node(lambda: [[0], [1]], None, "splits", name="partition.split")] if 0 in cycles else []
        for cycle in cycles:
            name, before = f"cycle_{cycle:02d}", f"cycle_{cycle - 1:02d}.metrics" if cycle else "splits"
            nodes += [
                node(lambda _, cycle=cycle: train(cycle), before, f"{name}.rounds", name="train", namespace=name),
                node(
                    lambda _, cycle=cycle: metrics(cycle),
                    f"{name}.rounds",
                    f"{name}.metrics",
                    name="evaluate",
                    namespace=name,
                ),
            ]
        return Pipeline([*nodes, node(report, f"{name}.metrics", "summary", name="report.summarise")])

    def run(self, pipeline, **options):
        hook = self.manager.hook
        arguments = {"run_params": options, "pipeline": pipeline, "catalog": self.catalog}
        hook.before_pipeline_run(**arguments)
        only_missing = options.get("only_missing_outputs", False)
        try:
            result = SequentialRunner().run(pipeline, self.catalog, self.manager, only_missing_outputs=only_missing)
        except Exception as error:
            hook.on_pipeline_error(error=error, **arguments)
            raise
        hook.after_pipeline_run(run_result=result, **arguments)


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "data/08_reporting" / RUN).mkdir(parents=True)
    return Project(tmp_path, monkeypatch)


def test_a_run_is_recorded_from_split_to_model(project):
    project.run(project.pipeline())
    recorder = project.recorder
    assert recorder.of("tags") == [({"split_sha256": file_digest(project.split)},)]
    assert recorder.of("metrics") == [
        ({"labels": 100.0, "accuracy": 0.5}, 100),
        ({"train_round_loss": 2.0}, 0),
        ({"train_round_loss": 2.0}, 1),
        ({"labels": 200.0, "accuracy": 0.75}, 200),
        ({"train_round_loss": 2.0}, 2),
        ({"train_round_loss": 2.0}, 3),
        ({"aulc": 0.75}, 200),
    ]
    assert recorder.of("artifact") == [
        ("splits.json", "split"),
        ("figure.png", "figures"),
        ("notes.txt", ""),
        ("summary.json", "tables"),
        ("table.csv", "tables"),
    ]
    ((name, description),) = recorder.of("model")
    assert name == "global_model.safetensors"
    assert description["image_shape"] == [1, 8, 9]
    assert description["model"] == {"name": "resnet8", "in_channels": 1, "num_classes": 2}
    json.dumps(description, allow_nan=False)
    assert recorder.calls[-1] == ("finish", "FINISHED", None)
    assert project.restarts == [False]


def test_an_error_ends_the_run_as_failed(project):
    with pytest.raises(ValueError, match="no"):
        project.run(project.pipeline(fail=True))
    assert project.recorder.of("finish") == [("FAILED", "ValueError: no")]
    assert project.recorder.of("model") == []


def test_a_run_that_waits_before_its_first_training_is_recorded_as_waiting(project):
    def wait():
        raise Waiting("labels")

    pipeline = project.pipeline(cycles=[0])
    asking = node(wait, None, "splits", name="cycle_00.initial_pool")
    with pytest.raises(Waiting):
        project.run(pipeline - pipeline.only_nodes("partition.split") + Pipeline([asking]))
    assert project.recorder.calls == [("finish", "SCHEDULED", None)]


def test_an_interrupted_run_is_left_without_an_end(project):
    pipeline = project.pipeline()
    project.hooks.before_pipeline_run(run_params={}, pipeline=pipeline, catalog=project.catalog)
    (training,) = [item for item in pipeline.nodes if item.name == "cycle_00.train"]
    project.hooks.before_node_run(node=training, inputs={}, catalog=project.catalog)
    project.hooks.abort()
    project.hooks.abort()
    assert [call for call in project.recorder.calls if call[0] in {"abort", "finish"}] == [("abort",)]


def test_what_does_not_train_is_not_tracked(project):
    project.run(Pipeline([node(lambda: [[0]], None, "splits", name="partition.split")]))
    assert project.restarts == []


def test_a_part_of_a_run_resumes_and_has_the_whole_curve(project):
    project.catalog.save("cycle_00.metrics", metrics(0))
    project.run(project.pipeline(cycles=[1]), from_nodes=["cycle_01.train"])
    assert project.restarts == [True]
    steps = {step for values, step in project.recorder.of("metrics") if "accuracy" in values}
    assert steps == {100, 200}


def test_with_nothing_missing_there_is_no_run(project):
    pipeline = project.pipeline(cycles=[0])
    project.run(pipeline)
    project.catalog["cycle_00.rounds"] = JSONDataset(filepath=str(project.folder / "metrics_00.json"))
    project.recorder.calls.clear()
    project.run(pipeline, only_missing_outputs=True)
    assert project.restarts == [False]
    assert project.recorder.calls == []


def test_no_number_of_the_run_is_taken_for_one_of_its_last_cycle():
    recorder = Recorder()
    record.record_metrics(recorder, {"labels": 200, "accuracy": 0.5, "bytes_sent": 10})
    record.record_summary(recorder, {"labels": 200, "aulc": 0.25, "bytes_sent": 30, "seed": 0}, step=200)
    (cycle, _), (run, _) = recorder.of("metrics")
    assert cycle == {"labels": 200, "accuracy": 0.5, "bytes_sent": 10}
    assert run == {"labels": 200, "aulc": 0.25, "total_bytes_sent": 30}

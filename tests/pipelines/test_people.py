"""A trial whose labels people give: it waits, resumes, and ends with the bits of one that an oracle answered."""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from safetensors.torch import load_file

from kafal_pipeline.annotation.answers import Answer, AnswerStore, now
from kafal_pipeline.annotation.requests import read_requests
from kafal_pipeline.common.errors import UserError, Waiting
from kafal_pipeline.config import resolve
from kafal_pipeline.data import read_store
from kafal_pipeline.data.pools import COLUMNS
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.lifecycle.runner import ResumableSequentialRunner

from ..conftest import draw_nothing

ROOT = Path(__file__).parents[2]
RUN = "tutorial/ksas-kcfu/seed_0"
SMALL = {
    "cycles": 3,
    "query": "ksas",
    "update": "kcfu",
    "federation": {"rounds": 2},
    "training": {"processes": 1},
    "budget": {"initial": 12, "per_cycle": 5},
    "dataset": {"image_size": 8},
    "tracking": False,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory, copy_of_project):
    """A project with the tutorial's images."""
    spec = importlib.util.spec_from_file_location("digit_files", ROOT / "examples/digit_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = copy_of_project(tmp_path_factory.mktemp("people"))
    (folder / "data/01_raw").mkdir(parents=True)
    module.main(folder / "data/01_raw/tutorial")
    return folder


@pytest.fixture(scope="module")
def truth(project):
    """The class of each file, as a person would see it."""
    with (project / "data/01_raw/tutorial/answers.csv").open() as file:
        return {row["file"]: row["label"] for row in csv.DictReader(file)}


def run(folder, **changes):
    bootstrap_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        with KedroSession.create(folder, env="tutorial", runtime_params={**SMALL, **changes}) as session:
            session.run(pipeline_names=["fal"], runner=ResumableSequentialRunner())


def label(folder, truth, name=RUN):
    """Answer all that a run asks for; return how much that was."""
    images = read_store(folder / "data/02_intermediate/tutorial/images")
    files = dict(zip([*images.train_ids, *images.test_ids], [*images.train_files, *images.test_files], strict=True))
    store, added = AnswerStore(folder / "data/annotation/tutorial/labels"), 0
    for request in read_requests(folder / "data/annotation" / name):
        said = [
            Answer(sample, "labelled", truth[files[sample]], "ann", now(), "csv", request.cycle, request.query, 2.0)
            for sample in [asked.sample for asked in request.samples]
        ]
        added += len(store.add(request.client, said))
    return added


def class_of(file, truth):
    return truth[file] if file in truth else Path(file).parent.name


@pytest.fixture(scope="module")
def finished(project, truth):
    """The project with a finished run; what each wait asked for."""
    asked = []
    for _ in range(4):
        try:
            run(project)
            break
        except Waiting as waits:
            asked.append((str(waits), label(project, truth)))
    return asked


def test_it_waits_for_the_first_pool_and_for_each_query(finished, project):
    images = read_store(project / "data/02_intermediate/tutorial/images")
    missing = int((images.test_labels < 0).sum()) + 2 * 12 - int((images.train_labels >= 0).sum())
    assert [count for _, count in finished] == [missing, 10, 10]
    assert "Cycle 0 waits for labels" in finished[0][0]
    assert "Cycle 2 waits for labels of 10 images" in finished[2][0]


def test_it_ends_with_the_bits_of_an_oracle_that_gives_the_same_answers(finished, project, truth):
    images = read_store(project / "data/02_intermediate/tutorial/images")
    number = {name: place for place, name in enumerate(images.classes)}
    right = {
        f"{part}_labels": np.array([number[class_of(file, truth)] for file in getattr(images, f"{part}_files")])
        for part in ("train", "test")
    }
    images = replace(images, **right, folder=None)
    config = resolve(
        {
            **SMALL,
            "partition": {"method": "natural", "clients": 2},
            "federation": {"rounds": 2, "participation": 1.0},
        }
    )
    pool = pd.read_parquet(project / "data/05_model_input" / RUN / "cycle_00/pool.parquet")[list(COLUMNS)]
    workers = Workers(images, config)
    try:
        steps = list(Trial(config, images, Simulation(config, workers, pool)).run())
    finally:
        workers.close()
    trained = [step.result for step in steps if step.name == "train"]
    for cycle, state in enumerate(trained):
        saved = load_file(project / "data/06_models" / RUN / f"cycle_{cycle:02d}/global_model.safetensors")
        assert saved.keys() == state.global_state.keys()
        assert all((saved[name] == state.global_state[name]).all() for name in saved)


def test_pools_record_who_labelled_what_and_when(finished, project):
    pool = pd.read_parquet(project / "data/05_model_input" / RUN / "cycle_02/pool.parquet")
    by_people = pool[pool["asked_in_cycle"] >= 0]
    assert set(by_people["annotator"]) == {"ann"}
    assert by_people["labelled_at"].str.endswith("+00:00").all()
    assert (by_people["asked_in_cycle"] == by_people["labelled_in_cycle"]).all()


def test_measures_count_what_people_did(finished, project):
    images = read_store(project / "data/02_intermediate/tutorial/images")
    metrics = pd.read_json(project / "data/07_model_output" / RUN / "cycle_02/metrics.json", typ="series")
    assert metrics["annotation_test_labels"] == (images.test_labels < 0).sum()
    asked = 2 * (12 + 5 + 5) - (images.train_labels >= 0).sum()
    assert metrics["annotation_labelled"] == metrics["annotation_asked"] == asked
    assert metrics["annotation_seconds_per_label"] == 2.0
    assert metrics["labels"] == 44


def test_another_run_of_the_data_set_finds_the_labels_of_the_first(finished, project, truth):
    with pytest.raises(Waiting, match="Cycle 1 waits"):
        run(project, query="random", cycles=2)


def test_an_oracle_that_does_not_know_is_refused(project):
    with pytest.raises(UserError, match="annotation.source"):
        run(project, annotation={"source": "oracle"})

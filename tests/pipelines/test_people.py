"""A trial whose labels people give: it waits, resumes, and ends with the bits of one that an oracle answered."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from safetensors.torch import load_file

from kafal_pipeline.annotation.page.serve import PageServer
from kafal_pipeline.common.errors import UserError, Waiting
from kafal_pipeline.config import resolve
from kafal_pipeline.data import read_store
from kafal_pipeline.data.pools import COLUMNS
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.lifecycle.resources import desk_of
from kafal_pipeline.lifecycle.runner import ResumableSequentialRunner

from ..conftest import draw_nothing

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
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


def run(folder, pipeline="fal", **changes):
    bootstrap_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        with KedroSession.create(folder, env="tutorial", runtime_params={**SMALL, **changes}) as session:
            session.run(pipeline_names=[pipeline], runner=ResumableSequentialRunner())


def files_of(folder):
    """The file of each image, by its id."""
    images = read_store(folder / "data/02_intermediate/tutorial/images")
    return dict(zip([*images.train_ids, *images.test_ids], [*images.train_files, *images.test_files], strict=True))


def in_a_table(folder, truth):
    """Fill in the table of the first client's latest request, and import it."""
    table = sorted((folder / "data/annotation" / RUN).glob("cycle_*/client_000/to_label.csv"))[-1]
    rows = pd.read_csv(table, dtype=str, encoding="utf-8-sig")
    rows["label"], rows["annotator"] = rows["sample"].map(files_of(folder)).map(truth), "ann"
    rows.to_csv(table, index=False, sep=";")
    run(folder, "annotate_import", annotation={"file": str(table)})
    return len(rows)


def on_the_page(folder, truth):
    """Answer the latest request of the second client with keys in a browser; where there is none, as the page does."""
    dataset = {"name": "tutorial", "path": "data/01_raw/tutorial", "image_size": 8}
    config, files = resolve({**SMALL, "dataset": dataset}), files_of(folder)
    desk = desk_of(config, read_store(folder / "data/02_intermediate/tutorial/images"), folder)
    server = PageServer(desk, 1, 0, "kedro run --pipeline fal")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        page = (Browser if CHROMIUM and sync_playwright else Requests)(server.address)
        with page:
            count = 0
            while (sample := page.sample()) is not None:
                page.answer(sample, desk.images.classes.index(truth[files[sample]]))
                count += 1
    finally:
        server.stop()
        thread.join(10)
    return count


class Browser:
    """Somebody at the page, in a Chromium without a window."""

    def __init__(self, address):
        self.address = address

    def __enter__(self):
        self.started = sync_playwright().start()
        self.browser = self.started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        self.tab = self.browser.new_page()
        self.tab.goto(self.address)
        self.tab.fill("#given-name", "bob")
        self.tab.keyboard.press("Enter")

    def sample(self):
        self.tab.wait_for_selector("body:not(.saving) #stage > img, #end:not([hidden])")
        image = self.tab.query_selector("#stage > img")
        return re.search(r"s[0-9a-f]{12}(-\d+)?", image.get_attribute("src"))[0] if image else None

    def answer(self, sample, number):
        self.tab.keyboard.press(str(number + 1))
        self.tab.wait_for_selector(f"body:not(.saving) #stage > img:not([src*='{sample}']), #end:not([hidden])")

    def __exit__(self, *_):
        self.browser.close()
        self.started.stop()


class Requests:
    """The requests that the page makes, without a browser."""

    def __init__(self, address):
        self.base, self.token = address.split("?token=")
        self.state = self._ask("next")

    def _ask(self, what, **body):
        headers = {"X-Token": self.token, "Content-Type": "application/json"}
        content = json.dumps({"annotator": "bob", "page": "one", **body}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.base}api/{what}", content, headers)) as reply:
            return json.load(reply)

    def __enter__(self):
        return self

    def sample(self):
        return self.state["queue"][0]["sample"] if self.state["queue"] else None

    def answer(self, sample, number):
        label = self.state["classes"][number]
        self.state = self._ask("answer", sample=sample, status="labelled", label=label, seconds=2.0)

    def __exit__(self, *_):
        pass


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
            asked.append((str(waits), in_a_table(project, truth) + on_the_page(project, truth)))
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
    measured = [step.result for step in steps if step.name == "evaluate"]
    for cycle, measures in enumerate(measured):
        found = json.loads((project / "data/07_model_output" / RUN / f"cycle_{cycle:02d}/metrics.json").read_text())
        expected = {key: value for key, value in measures.items() if not key.endswith("seconds")}
        assert {key: found[key] for key in expected} == expected


def test_pools_record_who_labelled_what_and_when(finished, project):
    pool = pd.read_parquet(project / "data/05_model_input" / RUN / "cycle_02/pool.parquet")
    by_people = pool[pool["asked_in_cycle"] >= 0]
    assert set(by_people["annotator"]) == {"ann", "bob"}
    assert by_people["labelled_at"].str.endswith("+00:00").all()
    assert (by_people["asked_in_cycle"] == by_people["labelled_in_cycle"]).all()


def test_measures_count_what_people_did(finished, project):
    images = read_store(project / "data/02_intermediate/tutorial/images")
    metrics = pd.read_json(project / "data/07_model_output" / RUN / "cycle_02/metrics.json", typ="series")
    assert metrics["annotation_test_labels"] == (images.test_labels < 0).sum()
    asked = 2 * (12 + 5 + 5) - (images.train_labels >= 0).sum()
    assert metrics["annotation_labelled"] == metrics["annotation_asked"] == asked
    assert 0 < metrics["annotation_seconds_per_label"] < 60
    assert metrics["labels"] == 44


def test_a_finished_run_whose_labels_have_changed_is_not_replaced(finished, project):
    labels = project / "data/annotation/tutorial/labels/client_000.jsonl"
    before = labels.read_bytes()
    said = json.loads(before.splitlines()[-1])
    said |= {"label": "three" if said["label"] != "three" else "five", "time": "2100-01-01T00:00:00.000+00:00"}
    labels.write_bytes(before + json.dumps(said).encode() + b"\n")
    try:
        with pytest.raises(UserError, match=f"1 of its images has changed since, such as {said['sample']}"):
            run(project)
        assert (project / "data/06_models" / RUN / "cycle_02/global_model.safetensors").is_file()
    finally:
        labels.write_bytes(before)


def test_another_run_of_the_data_set_finds_the_labels_of_the_first(finished, project, truth):
    with pytest.raises(Waiting, match="Cycle 1 waits"):
        run(project, query="random", cycles=2)


def test_an_oracle_that_does_not_know_is_refused(project):
    with pytest.raises(UserError, match="annotation.source"):
        run(project, annotation={"source": "oracle"})

"""The server's trial over sites: its files, and a server that is killed and resumes."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from over_sites import comparable, simulated

from kafal_pipeline.annotation.answers import Answer, now
from kafal_pipeline.common.errors import UserError, Waiting
from kafal_pipeline.config import resolve
from kafal_pipeline.pipelines.sites.trial import run_trial
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.sites.at_site.people import desk_of, requests_of
from kafal_pipeline.sites.at_site.service import SiteService
from kafal_pipeline.sites.at_site.site_file import read_site
from kafal_pipeline.sites.demo import write_demo
from kafal_pipeline.sites.in_process import InProcess


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "federation"
    write_demo(folder)
    return folder


@pytest.fixture
def services(demo, tmp_path):
    sites = [read_site(path) for path in sorted(demo.glob("*/site.yml"))]
    return [SiteService(site.model_copy(update={"work": str(tmp_path / site.name)})) for site in sites]


def make_config(**changes):
    values = {
        "cycles": 3,
        "query": "fairfal",
        "update": "scaffold",
        "dataset": {"name": "demo"},
        "partition": {"method": "natural", "clients": 3},
        "budget": {"initial": 20, "per_cycle": 10},
        "model": {"name": "cnn4", "width": 8},
        "federation": {"rounds": 3, "participation": 0.67},
        "training": {"local_epochs": 1, "device": "cpu", "processes": 1},
        "tracking": "off",
    }
    return resolve(values | changes)


class Killed(BaseException):
    pass


class Dying(InProcess):
    """Ends the server at its n-th question: before the sites get it, or after one of them has answered."""

    def __init__(self, services, at, after):
        super().__init__(services)
        self.left, self.after = at, after

    def ask(self, kind, requests, place):
        self.left -= 1
        if self.left < 0 and not self.after:
            raise Killed
        for found in super().ask(kind, requests, place):
            yield found
            if self.left < 0:
                raise Killed


def results(root, config):
    run = Layout(root, config)
    rounds = pd.concat([pd.read_parquet(path) for path in sorted(run.outputs.glob("*/rounds.parquet"))])
    models = [run.global_model(cycle).read_bytes() for cycle in range(config.cycles)]
    metrics = [json.loads(run.metrics(cycle).read_text()) for cycle in range(config.cycles)]
    for row in metrics:
        for key in ("train_seconds", "query_seconds", "evaluate_seconds"):
            del row[key]
    return rounds.drop(columns="seconds").reset_index(drop=True), models, metrics


def test_the_files_of_a_simulated_trial_with_its_numbers(services, demo, tmp_path):
    config = make_config()
    summary = run_trial(config, InProcess(services), tmp_path)
    report = Layout(tmp_path, config).report
    names = {"summary.json", "learning_curve.csv", "classes.csv", "clients.csv"}
    figures = {"learning_curve.png", "confusion_matrix.png", "queried_classes.png"}
    assert {path.name for path in report.iterdir()} == names | figures
    together = config.model_copy(
        update={"dataset": config.dataset.model_copy(update={"path": str(demo / "together"), "name": "demo"})}
    )
    expected = [step for step in simulated(together, tmp_path / "simulated") if step.name == "evaluate"]
    assert summary["final_accuracy"] == expected[-1].result["accuracy"]
    assert pd.read_csv(report / "clients.csv")["name"].tolist() == ["east", "north", "west"]
    _, _, metrics = results(tmp_path, config)
    for found, step in zip(metrics, expected, strict=True):
        whole = comparable(step)
        assert {key: found[key] for key in whole if key != "per_client"} == {
            key: value for key, value in whole.items() if key != "per_client"
        }


@pytest.mark.parametrize("after", [False, True])
def test_a_server_that_is_killed_anywhere_resumes_with_the_same_bits(after, services, tmp_path):
    config = make_config()
    run_trial(config, InProcess(services), tmp_path / "whole")
    rounds, models, metrics = results(tmp_path / "whole", config)
    carrier, deaths = Dying(services, 1, after), 0
    while True:
        try:
            run_trial(config, carrier, tmp_path / "killed")
            break
        except Killed:
            deaths += 1
            # Each time a step further; a site is made anew, too, as after a restart of its machine.
            again = [SiteService(service.site) for service in services]
            carrier = Dying(again, 4 + deaths % 3, after)
    assert deaths > 3
    found = results(tmp_path / "killed", config)
    pd.testing.assert_frame_equal(found[0], rounds)
    assert found[1:] == (models, metrics)


def test_a_simulated_run_is_not_replaced(services, tmp_path):
    run = Layout(tmp_path, make_config())
    run.outputs.mkdir(parents=True)
    run.provenance.write_text("{}")
    with pytest.raises(UserError, match="a simulated run lies there"):
        run_trial(make_config(), InProcess(services), tmp_path)
    assert run.provenance.exists()


def test_other_parameters_do_not_mix_with_an_interrupted_trial(services, tmp_path):
    with pytest.raises(Killed):
        run_trial(make_config(), Dying(services, 6, False), tmp_path)
    other = make_config(budget={"initial": 20, "per_cycle": 11})
    with pytest.raises(UserError, match="other parameters"):
        run_trial(other, InProcess(services), tmp_path)
    run_trial(other.model_copy(update={"restart": True}), InProcess(services), tmp_path)


def test_a_trial_that_waits_for_people_resumes_without_a_second_query(demo, tmp_path):
    for path in sorted(demo.glob("*/site.yml")):
        images = tmp_path / path.parent.name / "images"
        (images / "unlabelled").mkdir(parents=True)
        shutil.copytree(path.parent / "images" / "test", images / "test")
        for file in path.parent.glob("images/train/*/*.png"):
            shutil.copy(file, images / "unlabelled" / f"{file.parent.name}-{file.name}")
        more = "annotation: {source: people, file_names: original}\n"
        (images.parent / "site.yml").write_text(path.read_text() + more)
    sites = [read_site(path) for path in sorted(tmp_path.glob("*/site.yml"))]
    config, asked, waited = make_config(annotation={"source": "people"}), [], []

    class Counting(InProcess):
        def ask(self, kind, requests, place):
            asked.append(kind)
            yield from super().ask(kind, requests, place)

    while True:
        try:
            summary = run_trial(config, Counting([SiteService(site) for site in sites]), tmp_path / "server")
            break
        except Waiting as waiting:
            waited.append(str(waiting).splitlines()[0])
        for site in sites:
            (run,) = requests_of(site).iterdir()
            desk = desk_of(site, run.name, None)  # whose images only exports read
            for item in desk.requests()[-1].missing(desk.verdicts()):
                label = item.file.partition("/")[2][0]
                desk.store.add(0, [Answer(item.sample, "labelled", label, "ann", now(), "csv", 0, "q")])
    assert waited == [
        f"The trial waits for labels of cycle {cycle}: site east for {n}, site north for {n}, site west for {n}."
        for cycle, n in ((0, 20), (1, 10), (2, 10))
    ]
    assert summary["final_accuracy"] > 0.15
    assert (asked.count("join"), asked.count("summary"), asked.count("select")) == (1, 2, 2)

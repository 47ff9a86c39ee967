"""Comparisons on the smoke preset, with real processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock, Mock

import pandas as pd
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import resolve
from kafal_pipeline.config.compare import CompareConfig
from kafal_pipeline.pipelines.compare import nodes
from kafal_pipeline.pipelines.compare.plan import Plan, Planned
from kafal_pipeline.pipelines.compare.side_by_side import child, execute
from kafal_pipeline.runs import lock as run_lock
from kafal_pipeline.runs import provenance
from kafal_pipeline.runs.code_digest import code_parts
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.tracking import Tracker

ROOT = Path(__file__).parents[2]
BRIEF = {"tracking": "off", "federation": {"rounds": 1}, "cycles": 2}

BROKEN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Broken:
    def select(self, pool, budget, rng):
        raise RuntimeError("out of ideas")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, copy_of_project):
    """A copy of the project without its data, with a query of its own that fails."""
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    (folder / "lib").mkdir()
    (folder / "lib" / "own_broken.py").write_text(BROKEN)
    return folder


def run(folder, pipeline="compare", only_missing=False, **params):
    bootstrap_project(folder)
    with (
        pytest.MonkeyPatch.context() as patch,
        KedroSession.create(project_path=folder, env="smoke", runtime_params={**BRIEF, **params}) as session,
    ):
        patch.chdir(folder)
        patch.syspath_prepend(folder / "lib")
        session.run(pipeline_names=[pipeline], only_missing_outputs=only_missing)


def compare(folder, queries=("random", "entropy"), seeds=(0, 1), **section):
    run(folder, compare={"queries": list(queries), "seeds": list(seeds), "updates": ["kcfu"], **section})


def outputs(folder, run_path):
    return folder / "data/07_model_output/smoke" / run_path


def finished_at(folder):
    paths = sorted((folder / "data/07_model_output/smoke").glob("*/*/provenance.json"))
    return {path.parent.parent.name + "/" + path.parent.name: path.stat().st_mtime_ns for path in paths}


def saved(folder):
    return resolve(json.loads((outputs(folder, "entropy-kcfu/seed_1") / "configuration.json").read_text()))


@pytest.fixture(scope="module")
def compared(folder):
    """One run made by itself, then the comparison that it is part of."""
    run(folder, pipeline="fal", query="random", update="kcfu", seed=0)
    before = finished_at(folder)
    compare(folder)
    return folder, before


def test_what_is_missing_is_run_and_what_is_there_is_used(compared):
    folder, before = compared
    assert list(before) == ["random-kcfu/seed_0"]
    after = finished_at(folder)
    assert set(after) == {f"{query}-kcfu/seed_{seed}" for query in ("random", "entropy") for seed in (0, 1)}
    assert after["random-kcfu/seed_0"] == before["random-kcfu/seed_0"]
    report = folder / "data/08_reporting/smoke/comparison/default"
    assert "random-kcfu" in (report / "report.html").read_text()
    table = pd.read_csv(report / "runs.csv")
    assert table["status"].tolist() == ["finished"] * 4


def test_another_query_runs_alone_and_a_failed_one_does_not_end_the_others(compared):
    folder, _ = compared
    before = finished_at(folder)
    with pytest.raises(UserError, match=r"1 of 4 runs failed(?s:.)*own_broken\.Broken-kcfu/seed_0.*out of ideas"):
        compare(folder, ["random", "own_broken.Broken", "margin", "entropy"], seeds=[0], name="more")
    after = finished_at(folder)
    assert {key: after[key] for key in before} == before
    assert set(after) - set(before) == {"margin-kcfu/seed_0", "own_broken.Broken-kcfu/seed_0"}
    table = pd.read_csv(folder / "data/08_reporting/smoke/comparison/more/runs.csv").set_index("query")
    assert table["status"].to_dict() == {
        "random": "finished", "entropy": "finished", "margin": "finished", "own_broken.Broken": "failed"
    }  # fmt: skip
    assert "out of ideas" in table["reason"]["own_broken.Broken"]
    log = (folder / "data/09_tracking/smoke/own_broken.Broken-kcfu/seed_0/run.log").read_text()
    assert "out of ideas" in log and "in select" in log


def test_strategies_of_one_seed_share_split_initial_pool_and_initial_weights(compared):
    folder, _ = compared
    run(folder, pipeline="trial", query="random", update="fedavg", seed=0)
    names = ["random-kcfu/seed_0", "entropy-kcfu/seed_0", "random-fedavg/seed_0", "entropy-kcfu/seed_1"]
    splits = [
        json.loads((outputs(folder, name) / "provenance.json").read_text())["fingerprint"]["split"] for name in names
    ]
    pools = [
        hashlib.sha256((folder / "data/05_model_input/smoke" / name / "cycle_00/pool.parquet").read_bytes()).hexdigest()
        for name in names
    ]
    weights = []
    for name in names:
        models = folder / "data/06_models/smoke" / name / "cycle_00/local_models"
        weights.append(hashlib.sha256((models / "broadcast_00000.safetensors").read_bytes()).hexdigest())
    for hashes in (splits, pools, weights):
        assert hashes[0] == hashes[1] == hashes[2]
        assert hashes[0] != hashes[3]


def test_results_that_were_changed_are_not_compared(compared, caplog):
    folder, _ = compared
    file = outputs(folder, "entropy-kcfu/seed_1") / "cycle_01/metrics.json"
    whole = file.read_text()
    file.write_text(json.dumps(json.loads(whole) | {"accuracy": 0.999}))
    with pytest.raises(UserError, match="changed since it was finished"):
        compare(folder, ["entropy"], seeds=[1], run_missing=False, name="changed")
    assert "entropy-kcfu/seed_1/cycle_01/metrics.json: not what the run saved there" in caplog.text
    compare(folder, ["entropy"], seeds=[1], name="changed")
    assert json.loads(file.read_text())["accuracy"] == json.loads(whole)["accuracy"]
    record = outputs(folder, "entropy-kcfu/seed_1") / "configuration.json"
    record.write_text(record.read_text().replace('"seed": 1', '"seed": 3'))
    with pytest.raises(UserError, match="changed since it was finished"):
        compare(folder, ["entropy"], seeds=[1], run_missing=False, name="changed")
    compare(folder, ["entropy"], seeds=[1], name="changed")


def test_an_interrupted_run_is_not_finished_and_resumes(compared):
    folder, _ = compared
    config = saved(folder)
    here = folder / "data/07_model_output" / config.run_path
    whole = (here / "cycle_01/metrics.json").read_text()
    first = (here / "cycle_00/metrics.json").stat().st_mtime_ns
    assert provenance.state(Layout(folder, config)) == "finished"
    provenance.reopen(Layout(folder, config))
    (here / "cycle_01/metrics.json").unlink()
    assert provenance.state(Layout(folder, config)) == "interrupted"
    compare(folder, ["entropy"], seeds=[1], name="again")
    assert provenance.state(Layout(folder, config)) == "finished"
    assert (here / "cycle_00/metrics.json").stat().st_mtime_ns == first
    assert json.loads((here / "cycle_01/metrics.json").read_text())["accuracy"] == json.loads(whole)["accuracy"]


def test_a_run_that_another_command_has_finished_meanwhile_is_not_done_again(compared, tmp_path, monkeypatch):
    folder, _ = compared
    hooks = Mock()
    hooks.join.side_effect = lambda *_, **__: pytest.fail("begun")
    session = child.Session(folder, "smoke", None, {})
    task = child.Task(session, saved(folder).model_dump(mode="json"), "trial", None, tmp_path / "log")
    child._run(task, pytest.fail, hooks)
    lock = run_lock.Lock()
    lock.acquire(Layout(folder, saved(folder)))
    with pytest.raises(run_lock.Taken, match="entropy-kcfu/seed_1"):
        child._run(task, pytest.fail, hooks)
    lock.release()
    provenance.reopen(Layout(folder, saved(folder)))
    with pytest.raises(pytest.fail.Exception, match="begun"):
        child._run(task, pytest.fail, hooks)
    provenance.finish(Layout(folder, saved(folder)))


def plan_of(folder, *configs, **section):
    section = {"queries": ["entropy"], "jobs": 1, **section}
    return Plan(
        CompareConfig.model_validate(section),
        (),
        tuple(Planned(Layout(folder, config), "absent") for config in configs),
    )


def test_a_run_that_never_came_to_its_end_has_failed(compared, monkeypatch):
    folder, _ = compared
    config = saved(folder)
    session = child.Session(folder, "smoke", None, {})
    monkeypatch.setattr(
        execute, "run_beside_others", lambda launcher, configs, *others: [(path, None) for path in configs]
    )
    assert execute.execute(plan_of(folder, config), session, Mock()) == ({}, {})
    provenance.reopen(Layout(folder, config))
    try:
        assert execute.execute(plan_of(folder, config), session, Mock()) == ({config.run_path: execute.CHANGED}, {})
        found = provenance.read(Layout(folder, config))
        assert (found.finished, found.error) == (None, execute.CHANGED)
    finally:
        provenance.finish(Layout(folder, config))


def test_finished_runs_that_others_replace_are_counted_first(compared, monkeypatch, caplog):
    folder, _ = compared
    config = saved(folder)
    session = child.Session(folder, "smoke", None, {})
    monkeypatch.setattr(execute, "run_beside_others", lambda *arguments: [])
    execute.execute(plan_of(folder, config, config.model_copy(update={"seed": 0})), session, Mock())
    assert "will be replaced" not in caplog.text
    assert "Memory, " not in caplog.text
    execute.execute(plan_of(folder, config.model_copy(update={"cycles": 1})), session, Mock())
    assert "1 of the runs to be made will replace one that was finished with other parameters" in caplog.text
    assert "dataset.label=" in caplog.text
    tight = plan_of(folder, config, config.model_copy(update={"seed": 0}), jobs=2, memory_limit=3)
    execute.execute(tight, session, Mock())
    assert "Memory, 3.0 GB, allows 1 side by side" in caplog.text


def test_code_that_is_no_longer_on_disk_is_not_run(compared, tmp_path, monkeypatch):
    folder, _ = compared
    monkeypatch.setattr(child, "_done_by_another", lambda task: pytest.fail("begun"))
    config = saved(folder)
    session = child.Session(folder, "smoke", None, {})
    before = tuple(
        f"{line}0" if line.startswith("kafal_pipeline.training.step\0") else line for line in code_parts(config)
    )
    _, task = execute._task(plan_of(folder, config), Layout(folder, config), session, None, before)
    said = r"edited while the comparison ran: kafal_pipeline\.training\.step\. The same command resumes"
    with pytest.raises(UserError, match=said):
        child._run(task, pytest.fail, Mock())
    assert provenance.state(Layout(folder, config)) == "finished"  # by another command, with the new code
    _, task = execute._task(plan_of(folder, config), Layout(folder, config), session, None, code_parts(config))
    with pytest.raises(pytest.fail.Exception, match="begun"):
        child._run(task, pytest.fail, Mock())


def test_a_run_needs_no_project_around_its_configuration(tmp_path, monkeypatch):
    """As where the project is installed as a wheel, and the folder has `conf/` alone."""
    session = child.Session(tmp_path, "smoke", "conf.tar.gz", {})
    kedro, config = MagicMock(), resolve({"query": "random"})
    monkeypatch.setattr(child, "KedroSession", kedro)
    monkeypatch.setattr(child, "_done_by_another", lambda task: False)
    try:
        child._run(
            child.Task(session, config.model_dump(mode="json"), "trial", None, tmp_path / "log"), pytest.fail, Mock()
        )
    finally:
        logging.captureWarnings(False)
    asked = kedro.create.call_args.kwargs
    assert (asked["project_path"], asked["conf_source"]) == (tmp_path, "conf.tar.gz")


def test_results_of_old_code_filed_under_the_new_are_forgotten(compared, monkeypatch):
    folder, _ = compared
    config = saved(folder)
    record = Layout(folder, config).provenance
    whole = record.read_bytes()
    session = child.Session(folder, "smoke", None, {})
    _, task = execute._task(plan_of(folder, config), Layout(folder, config), session, None, code_parts(config))
    answers = iter([[], ["kafal_pipeline.training.step"]])
    monkeypatch.setattr(child, "edited", lambda config, before: next(answers))
    monkeypatch.setattr(child, "_done_by_another", lambda task: False)
    monkeypatch.setattr(child, "KedroSession", MagicMock())
    try:
        with pytest.raises(UserError, match="edited while"):
            child._run(task, pytest.fail, Mock())
        assert not record.exists()
    finally:
        logging.captureWarnings(False)
        record.write_bytes(whole)


def test_results_of_other_parameters_are_not_used(compared):
    folder, _ = compared
    config = saved(folder)
    assert provenance.state(Layout(folder, config.model_copy(update={"cycles": 1}))) == "absent"
    assert provenance.state(Layout(folder, resolve({**config.model_dump(), "tracking": "off"}))) == "finished"
    people = resolve({**config.model_dump(), "annotation": {"source": "people"}})
    assert provenance.state(Layout(folder, people)) == "absent"


def test_without_running_what_is_not_there_is_shown(compared):
    folder, _ = compared
    before = finished_at(folder)
    compare(folder, ["random", "badge"], seeds=[0], name="shown", run_missing=False)
    assert finished_at(folder) == before
    table = pd.read_csv(folder / "data/08_reporting/smoke/comparison/shown/runs.csv").set_index("query")
    assert table["reason"]["badge"] == "never ran"
    with pytest.raises(UserError, match="no finished run"):
        compare(folder, ["badge"], seeds=[9], baseline="badge", run_missing=False)


def test_a_seed_whose_split_cannot_be_made_ends_no_other(compared, caplog):
    folder, _ = compared
    partition = {"clients": 10, "min_size": 106}
    section = {"queries": ["random"], "updates": ["kcfu"], "name": "split"}
    own = {"partition": partition, "dataset": {"label": "tight"}}
    reason = r"the split tight/seed_0 could not be made: partition\.min_size"
    with pytest.raises(UserError, match=rf"1 of 2 runs failed(?s:.)*tight/random-kcfu/seed_0: {reason}"):
        run(folder, **own, compare={**section, "seeds": [0, 4]})
    table = pd.read_csv(folder / "data/08_reporting/tight/comparison/split/runs.csv").set_index("seed")
    assert table["status"].to_dict() == {0: "failed", 4: "finished"}
    assert "could not be made" in table["reason"][0]
    found = json.loads((folder / "data/07_model_output/tight/random-kcfu/seed_0/provenance.json").read_text())
    assert "could not be made" in found["error"]
    with pytest.raises(UserError, match=rf"There is no finished run to compare: {reason}"):
        run(folder, **own, compare={**section, "seeds": [0]})


def test_only_the_runs_that_a_report_shows_get_its_tag(compared, monkeypatch, caplog):
    """Where a run is missing, one of other parameters may lie, with a name of its own in the tracker."""
    folder, _ = compared
    tracked = [
        resolve({**json.loads((outputs(folder, path) / "configuration.json").read_text()), "tracking": {}})
        for path in ("random-kcfu/seed_0", "entropy-kcfu/seed_0")
    ]
    used, other = tracked[0], tracked[1].model_copy(update={"cycles": 1})
    section = CompareConfig.model_validate({"name": "tags", "queries": ["random", "entropy"], "run_missing": False})
    plan = Plan(section, (), (Planned(Layout(folder, used), "finished"), Planned(Layout(folder, other), "absent")))
    session = nodes.Session(folder)
    given = []
    monkeypatch.setattr(nodes, "record_comparison", lambda *args: given.extend(args[-1]))
    nodes.report(plan, nodes.load(plan, *nodes.run(plan, session, Mock()), session), Mock())
    assert given == [provenance.execution(Layout(folder, used))]
    assert provenance.execution(Layout(folder, other))
    said = "1 of 1 runs were made without tracking"
    assert said in caplog.text
    assert "They are smoke/random-kcfu/seed_0" in caplog.text
    caplog.clear()
    Tracker.start(used, folder / "data/09_tracking" / used.run_path, folder, comparison="tags", execution=given[0])
    nodes.report(plan, nodes.load(plan, *nodes.run(plan, session, Mock()), session), Mock())
    assert said not in caplog.text


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ({"queries": ["random", "entropi"]}, "compare.queries: found 'entropi'. Did you mean 'entropy'"),
        ({"queries": ["random", "random"]}, "more than once"),
        ({"queries": ["random", {"name": "ksas", "smoothing": 1}]}, "compare.queries.smoothing: unknown option"),
        ({"queries": ["random"], "seeds": "x"}, "--params: compare.seeds"),
    ],
)
def test_mistakes_are_found_before_any_work(compared, section, part):
    folder, _ = compared
    before = finished_at(folder)
    with pytest.raises(UserError) as raised:
        run(folder, compare=section)
    assert part in str(raised.value)
    assert finished_at(folder) == before


def test_parameters_of_one_run_are_none_of_a_comparison(compared):
    folder, _ = compared
    with pytest.raises(UserError) as raised:
        run(folder, query="badge", seed=5, compare={"queries": ["random"], "seeds": [0]})
    lines = str(raised.value).splitlines()
    assert [line.partition(", which")[0] for line in lines] == [
        "--params: query: found 'badge'", "--params: seed: found 5"
    ]  # fmt: skip
    assert "Write compare.seeds=... instead" in lines[1]


def test_the_report_of_a_saved_run_is_made_again_with_its_own_parameters(compared):
    folder, _ = compared
    name = "smoke/entropy-kcfu/seed_1"
    report = folder / "data/08_reporting" / name
    before = (report / "summary.json").read_bytes()
    made = finished_at(folder)
    shutil.rmtree(report)
    bootstrap_project(folder)
    with (
        pytest.MonkeyPatch.context() as patch,
        KedroSession.create(project_path=folder, runtime_params={"run": name}) as session,
    ):
        patch.chdir(folder)
        session.run(pipeline_names=["report"])
    assert (report / "summary.json").read_bytes() == before
    assert len(list(report.glob("*.png"))) == 5
    assert finished_at(folder) == made


@pytest.mark.parametrize(
    ("params", "pipeline", "part"),
    [
        ({"run": "smoke/entropi-kcfu/seed_1"}, "report", "smoke/entropy-kcfu/seed_1"),
        ({"run": "smoke/entropy-kcfu/seed_1", "seed": 3}, "report", "--params: seed"),
        ({"run": "smoke/entropy-kcfu/seed_1"}, "trial", "kedro run --pipeline report"),
    ],
)
def test_mistakes_about_saved_runs(compared, params, pipeline, part):
    folder, _ = compared
    bootstrap_project(folder)
    with (
        KedroSession.create(project_path=folder, runtime_params=params) as session,
        pytest.raises(UserError) as raised,
    ):
        session.run(pipeline_names=[pipeline])
    assert part in str(raised.value)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="POSIX")
def test_ctrl_c_ends_every_process(compared):
    folder, _ = compared
    section = "compare.name=long,compare.queries=[random,entropy],compare.seeds=[0]"
    params = f"{section},tracking=off,federation.rounds=100000,restart=true"
    process = subprocess.Popen(
        [sys.executable, "-m", "kafal_pipeline", "--pipeline", "compare", "--env", "smoke", "--params", params],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    logs = [folder / f"data/09_tracking/smoke/{query}-kcfu/seed_0/run.log" for query in ("random", "entropy")]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not all(log.exists() and "round 1/" in log.read_text() for log in logs):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _alive(process.pid):
        time.sleep(0.2)
    assert not _alive(process.pid)


def _alive(session):
    import psutil

    alive = []
    for item in psutil.process_iter():
        try:
            if os.getsid(item.pid) == session and item.status() != psutil.STATUS_ZOMBIE:
                alive.append(item.pid)
        except (ProcessLookupError, psutil.Error):
            continue
    return alive

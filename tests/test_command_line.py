"""The program as a user runs it: `kedro run` in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from kafal_pipeline import cli
from kafal_pipeline.lifecycle.current_run import Kind
from kafal_pipeline.settings import current_run

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, copy_of_project):
    """A copy of the project without sources, which come from PYTHONPATH, and without data."""
    return copy_of_project(tmp_path_factory.mktemp("project"))


def command(*arguments):
    return [sys.executable, "-m", "kedro", "run", *arguments]


def environment():
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "KEDRO", "DO_NOT_TRACK"))}
    return {**kept, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}


def kedro(folder, *arguments, **options):
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def finished(folder):
    """The default command on the smoke preset, tracked in the folder's own store."""
    return kedro(folder, "--pipeline", "fal", "--env", "smoke")


def test_ends_with_the_table_and_where_to_look_next(finished, folder):
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.strip().splitlines()
    (header,) = [index for index, line in enumerate(lines) if line.startswith("cycle ")]
    assert lines[header].split() == ["cycle", "labels", "share", "accuracy", "balanced", "accuracy", "AULC"]
    assert len(lines) - header < 12
    assert any("mlflow ui" in line for line in lines[header:])
    assert any("viewStateShareKey" in line for line in lines[header:])
    summary = json.loads((folder / "data/08_reporting/smoke/ksas-kcfu/seed_0/summary.json").read_text())
    last = [line for line in lines[header:] if line.split()[:1] == ["1"]]
    assert f"{100 * summary['final_accuracy']:.2f} %" in last[0]
    assert "Warning" not in finished.stderr


def test_a_bare_mlflow_ui_finds_the_run(finished, folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("smoke")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["query"] == "ksas"
    assert run.data.params["training.lr"] == "0.05"
    summary = json.loads((folder / "data/08_reporting/smoke/ksas-kcfu/seed_0/summary.json").read_text())
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert [metric.step for metric in sorted(history, key=lambda metric: metric.step)][-1] == summary["labels"]
    assert run.data.metrics["aulc"] == pytest.approx(summary["aulc"])


def test_without_tracking_mlflow_is_not_imported(folder):
    script = (
        "import sys; sys.argv = ['kedro', 'run', '--env', 'smoke', '--params', 'tracking=off,seed=5,cycles=1']\n"
        "from kedro.framework.cli.cli import main\n"
        "try: main()\n"
        "finally: assert 'torch' in sys.modules and 'mlflow' not in sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "cycle  labels" in result.stdout  # a trial is what runs without --pipeline
    assert not list((folder / "data/09_tracking/smoke/ksas-kcfu").glob("seed_5"))


def results(folder):
    """Return the files of `data/` but those that the helper of an earlier run may still be delivering."""
    files = [path for path in (folder / "data").glob("0[1-8]_*/**/*") if path.is_file()]
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("params", "parts"),
    [
        ("query=ksass", ["--params", "query", "'ksass'", "Did you mean 'ksas'"]),
        ("budget.per_cycle=0.99", ["budget", "larger than its pool"]),
        ("training.device=cuda:99", ["training.device", "cuda:99"]),
        ("dataset.name=nowhere", ["dataset.name", "'nowhere'", "nowhere.npz"]),
    ],
)
def test_bad_input_gets_one_message_and_exit_code_1(finished, folder, params, parts):
    before = results(folder)
    result = kedro(folder, "--env", "smoke", "--params", f"tracking=off,query=margin,{params}")
    assert result.returncode == 1
    output = result.stdout + result.stderr
    assert "Traceback" not in output
    assert output.count("Error") == output.count("Error: ") == 1
    assert "ERROR" not in output
    for part in parts:
        assert part in output
    assert results(folder) == before


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--pipeline", "nope"], "nope"),
        (["--env", "smoke", "--params", "seed=["], "--params: 'seed=[' cannot be read"),
        (["--env", "smoke", "--params", "sead=1", "--params", "seed=1"], "sead"),
        (["--env", "smoke", "--params", "seed=1", "--params", "sead=1"], "sead"),
        (
            ["--env", "smoke", "--params", "tracking.uri=ftp://x/y"],
            "tracking.uri: the tracker ftp://x/y cannot be reached",
        ),
        (
            ["--env", "smoke", "--params", "tracking=off,seed=99", "--from-nodes", "cycle_01.train"],
            "without --from-nodes",
        ),
        (["--env", "smoke", "--params", "tracking=off,seed=99", "--pipeline", "report"], "Run it first"),
    ],
)
def test_what_kedro_cannot_find_or_read_gets_a_message_too(folder, arguments, part):
    result = kedro(folder, *arguments)
    assert result.returncode == 1
    output = result.stdout + result.stderr
    assert "Traceback" not in output
    assert "Error: " in output
    assert part in output


@pytest.mark.parametrize("kept", ["", "images: {type: kafal_pipeline.catalog.ImageStore, filepath: data/images}\n"])
def test_a_catalog_without_our_data_sets_is_named(folder, kept):
    catalog = folder / "conf/base/catalog.yml"
    before = catalog.read_text()
    catalog.write_text(kept)
    try:
        result = kedro(folder, "--env", "smoke", "--params", "tracking=off,seed=98")
    finally:
        catalog.write_text(before)
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert "Traceback" not in output
    assert "Error: conf/base/catalog.yml: found no entry for " in output
    assert "{cycle}.pool" in output
    assert (" images," in output) == (not kept)


def test_an_unknown_option_is_for_click_to_refuse(folder):
    assert kedro(folder, "--foo").returncode == 2


@pytest.mark.parametrize("trains", [True, False])
def test_only_what_trains_is_said_to_resume(trains, capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(current_run, "node", "cycle_00.train")
    monkeypatch.setattr(current_run, "kind", Kind(trains=trains))
    with pytest.raises(click.exceptions.Exit):
        cli._guarded(interrupted)()
    assert ("resumes from the last saved round" in capsys.readouterr().err) == trains


def test_runs_as_a_module(folder):
    result = subprocess.run(
        [sys.executable, "-m", "kafal_pipeline", "--pipelines", "fal", "--env", "smoke", "--params",
         "tracking=off,seed=2,cycles=1"],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "cycle  labels" in result.stdout


def test_runs_from_a_sub_folder_and_leaves_nothing_there(folder):
    below = folder / "below"
    below.mkdir()
    result = kedro(below, "--env", "smoke", "--params", "seed=8,federation.rounds=1")
    assert result.returncode == 0, result.stderr
    assert not list(below.iterdir())
    assert (folder / "data/08_reporting/smoke/ksas-kcfu/seed_8/summary.json").is_file()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([[0, 1], [1, 2], [3]], "sample 1 belongs to client 0 and to client 1"),
        ([[0], [1], [2]], "1435 of 1438 training samples belong to no client"),
        ([[0], [1], [10**6]], "1000000"),
        ("[[0, 1", "JSON"),
    ],
)
def test_a_wrong_split_is_refused(folder, content, part):
    path = folder / "split.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    params = "tracking=off,partition.method=file,partition.path=split.json,seed=9"
    result = kedro(folder, "--env", "smoke", "--params", params)
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert "Traceback" not in output
    assert "split.json" in output
    assert part in output
    assert not (folder / "data/03_primary/smoke/seed_9").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruptions_end_soon_and_are_recorded_as_killed(folder, number, code):
    from mlflow import MlflowClient

    query = {signal.SIGINT: "entropy", signal.SIGTERM: "random"}[number]
    params = f"query={query},seed=7,federation.rounds=100000,training.processes=2"
    process = subprocess.Popen(
        command("--env", "smoke", "--params", params),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if "round 1/100000" in line:
            break
    start = time.monotonic()
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert time.monotonic() - start < 60  # most of it the import of mlflow, which a short run has not finished
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (folder / "mlflow.db").exists():
        time.sleep(0.5)  # the helper makes it whole; a client would begin one of its own
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    while time.monotonic() < deadline:
        experiment = client.get_experiment_by_name("smoke")
        name = experiment.experiment_id if experiment else "0"
        runs = client.search_runs([name], f"params.query = '{query}' and params.seed = '7'")
        if runs and runs[0].info.status != "RUNNING":
            break
        time.sleep(0.5)
    assert [run.info.status for run in runs] == ["KILLED"]

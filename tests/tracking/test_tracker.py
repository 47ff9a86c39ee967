"""The run's side and the helper together, each test in a store of the session."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

import kafal_pipeline
from kafal_pipeline.config import resolve
from kafal_pipeline.tracking import NullTracker, Tracker
from kafal_pipeline.tracking.deliver import __main__ as deliver
from kafal_pipeline.tracking.deliver.delivery import Addresses, Delivery
from kafal_pipeline.tracking.deliver.follow import TRY_LATER
from kafal_pipeline.tracking.journal import JOURNAL, read
from kafal_pipeline.tracking.progress import PROGRESS, Progress

UNREACHABLE = "http://127.0.0.1:9"


def config(uri, **changes):
    return resolve({"tracking": {"uri": uri, "system_metrics": False}, **changes})


def run_of(client, folder):
    return client.get_run(Progress.load(folder).run_id)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    import torch  # seconds
    from safetensors.torch import save_file

    from kafal_pipeline.models.factory import build

    network = build("resnet8", in_channels=1, num_classes=10, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("model") / "global_model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def finished(store, state, tmp_path_factory):
    """A run with one of everything, delivered by its helper."""
    client, project, uri = store
    folder = tmp_path_factory.mktemp("finished")
    figure = folder / "figure.png"
    figure.write_bytes(b"png")
    gone = folder / "gone.csv"
    gone.write_text("a")
    tracker = Tracker.start(resolve({"tracking": {"uri": uri}}), folder, project)
    tracker.artifact(gone)
    gone.unlink()
    for labels in (10, 20):
        tracker.metrics({"accuracy": labels / 100}, step=labels, durable=True)
    tracker.metrics({"train_round_loss": float("nan"), "train_round_norm": float("inf")}, step=0)
    tracker.tags({"split_sha256": "abc"})
    tracker.artifact(figure, "figures")
    tracker.model(
        state,
        model={"name": "resnet8", "in_channels": 1, "num_classes": 10},
        image_shape=[1, 8, 8],
        mean=[0.5],
        std=[0.25],
        classes=list("0123456789"),
        step=20,
    )
    tracker.finish("FINISHED")
    return client, tracker.journal.parent, uri


def test_a_finished_run_has_its_parameters_tags_metrics_and_files(finished):
    client, folder, _ = finished
    run = run_of(client, folder)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("ksas-kcfu-seed0")
    assert run.data.params["training.lr"] == "0.05"
    assert run.data.tags["split_sha256"] == "abc"
    assert run.data.tags["version.python"]
    curve = client.get_metric_history(run.info.run_id, "accuracy")
    assert [(point.step, point.value) for point in curve] == [(10, 0.1), (20, 0.2)]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "figures")] == ["figures/figure.png"]
    assert any(name.startswith("system/cpu") for name in run.data.metrics)
    assert Progress.load(folder).complete


def test_a_file_that_is_gone_is_noted_and_holds_up_nothing(finished):
    _, folder, _ = finished
    assert [note.rsplit("/", 1)[-1] for note in Progress.load(folder).skipped] == ["gone.csv is gone"]


def test_the_model_loads_and_predicts_what_the_network_does(finished, state):
    import mlflow  # seconds
    import torch  # seconds
    from safetensors.torch import load_file

    from kafal_pipeline.models.factory import ImageClassifier, build

    client, folder, uri = finished
    mlflow.set_tracking_uri(uri)
    network = build("resnet8", in_channels=1, num_classes=10)
    network.load_state_dict(load_file(state))
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = ImageClassifier(network, [0.5], [0.25]).eval()(images)
        model = mlflow.pytorch.load_model(f"runs:/{Progress.load(folder).run_id}/global_model").eval()
        torch.testing.assert_close(model(images), expected)
    served = mlflow.pyfunc.load_model(run_of(client, folder).data.tags["model"])
    torch.testing.assert_close(torch.from_numpy(served.predict(images.numpy())), expected)
    tags = client.get_logged_model(run_of(client, folder).data.tags["model"].rpartition("/")[2]).tags
    assert tags["mlflow.source.git.repoURL"] == "" and "deliver.py" not in tags["mlflow.source.name"]
    info = mlflow.models.get_model_info(run_of(client, folder).data.tags["model"])
    assert info.flavors["pytorch"]["pytorch_version"] == torch.__version__  # else loading warns
    assert served.predict(served.input_example).shape == (2, 10)
    assert info.metadata["classes"] == list("0123456789")


def finished_runs(client, run):
    """Ids of the finished runs next to a run; a killed one's helper may still be adding that."""
    found = client.search_runs([run.info.experiment_id])
    return sorted(other.info.run_id for other in found if other.info.status == "FINISHED")


def test_delivering_again_adds_nothing_even_when_the_progress_is_lost(finished):
    client, folder, _ = finished
    before = run_of(client, folder)
    others = finished_runs(client, before)
    (folder / PROGRESS).unlink()
    assert deliver.main([str(folder)]) == 0
    after = run_of(client, folder)
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert after.info.end_time == before.info.end_time
    assert after.data.tags["model"] == before.data.tags["model"]
    for name in ("accuracy", "train_round_loss", "train_round_norm"):
        assert len(client.get_metric_history(after.info.run_id, name)) == (2 if name == "accuracy" else 1)
    assert finished_runs(client, after) == others


def test_a_model_is_delivered_without_pytorch(finished, run_python, tmp_path):
    """Its import would be waited for at the end of every run."""
    import mlflow  # seconds

    _, folder, _ = finished
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / JOURNAL, other)
    code = (
        "import sys; from kafal_pipeline.tracking.deliver.__main__ import main; code = main(sys.argv[1:]);"
        "sys.exit(code + 10 * ('torch' in sys.modules))"
    )
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert run_python(code, other, "--uri", uri).returncode == 0
    assert mlflow.MlflowClient(uri).get_run(Progress.load(other).run_id).data.tags["model"].startswith("models:/")


def test_numbers_wait_for_company_and_files_do_not(store, tmp_path):
    _, project, uri = store
    tracker = Tracker.start(config(uri), tmp_path, project, comparison="delivered by this test")
    delivery = Delivery(tracker.journal, Addresses(None, None))
    assert delivery.due()
    assert delivery.attempt(over=False, live=True)
    tracker.metrics({"accuracy": 0.5}, step=10)
    assert not delivery.due()
    (tmp_path / "a.txt").write_text("a")
    tracker.artifact(tmp_path / "a.txt")
    assert delivery.due()
    assert delivery.attempt(over=False, live=True)
    assert not delivery.due()
    tracker.finish("FINISHED")
    assert delivery.due()


def test_files_wait_as_well_for_a_tracker_that_is_down(store, tmp_path):
    _, project, _ = store
    tracker = Tracker.start(config(UNREACHABLE), tmp_path, project, comparison="delivered by this test")
    delivery = Delivery(tracker.journal, Addresses(None, None))
    assert delivery.due()
    assert not delivery.attempt(over=False, live=True)
    assert not delivery.due()


def test_what_is_delivered_is_not_looked_at_again(finished, run_python):
    _, folder, _ = finished
    code = (
        "import sys; from kafal_pipeline.tracking.deliver.__main__ import main; code = main(sys.argv[1:]);"
        "sys.exit(code + 10 * ('mlflow' in sys.modules))"
    )
    assert run_python(code, folder).returncode == 0


@pytest.mark.skipif(not hasattr(os, "nice"), reason="processes cannot say so here")
def test_the_helper_lets_the_run_come_first(store, tmp_path, gives_way):
    _, project, uri = store
    tracker = Tracker.start(config(uri), tmp_path, project)
    assert gives_way(tracker._helper._process.pid) == min(deliver.COURTESY, 19 - os.nice(0))
    tracker.finish("FINISHED")


def test_a_killed_process_leaves_a_killed_run(store, tmp_path):
    client, project, uri = store
    code = (
        "import os, sys, time; from pathlib import Path; from kafal_pipeline.config import resolve;"
        "from kafal_pipeline.tracking import Tracker;"
        "c = resolve({'tracking': {'uri': sys.argv[2], 'system_metrics': False}});"
        "t = Tracker.start(c, Path(sys.argv[1]), Path(sys.argv[3])); t.metrics({'accuracy': 0.5}, step=7);"
        # A worker that was forked and outlives its parent must not keep the run alive.
        "child = os.fork();"
        "print(child, flush=True) if child else None; time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(kafal_pipeline.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path), uri, str(project)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
        try:
            (folder,) = tmp_path.iterdir()
            deadline = time.monotonic() + 40
            while not Progress.load(folder).complete and time.monotonic() < deadline:
                time.sleep(0.2)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    run = run_of(client, folder)
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"accuracy": 0.5}


def test_a_tracker_that_is_down_loses_nothing_and_a_restart_resumes_in_the_same_run(store, tmp_path, caplog):
    client, project, uri = store
    tracker = Tracker.start(config(UNREACHABLE), tmp_path, project, patience=0)
    tracker.metrics({"accuracy": 0.25}, step=1)
    tracker.finish("FAILED", "ValueError: no")
    assert "Nothing is lost" in caplog.text
    assert f"python -m kafal_pipeline.tracking.deliver {tracker.journal}" in caplog.text
    folder = tracker.journal.parent

    assert deliver.main([str(tmp_path)]) == TRY_LATER
    assert deliver.main([str(tmp_path), "--uri", uri]) == 0
    failed = run_of(client, folder)
    assert failed.info.status == "FAILED"
    assert failed.data.tags["error"] == "ValueError: no"
    assert failed.data.metrics == {"accuracy": 0.25}

    # Interrupted this time: no end event. What the first part recorded is not recorded again.
    again = Tracker.start(config(UNREACHABLE), tmp_path, project, restart=True, patience=0)
    assert again.journal == tracker.journal
    again.metrics({"accuracy": 0.25}, step=1)
    again.metrics({"accuracy": 0.75}, step=2)
    again.abort()
    (folder / PROGRESS).unlink()
    assert deliver.main([str(tmp_path), "--uri", uri]) == 0
    killed = run_of(client, folder)
    assert killed.info.run_id == failed.info.run_id
    assert killed.info.status == "KILLED"
    points = client.get_metric_history(killed.info.run_id, "accuracy")
    assert [(point.step, point.value) for point in points] == [(1, 0.25), (2, 0.75)]


@pytest.fixture
def no_helper(monkeypatch):
    monkeypatch.setattr("kafal_pipeline.tracking.tracker.Helper", mock.Mock())


@pytest.mark.usefixtures("no_helper")
class TestWhichJournal:
    def test_every_run_has_its_own(self, tmp_path):
        for _ in range(2):
            Tracker.start(config(None), tmp_path, tmp_path).finish("FINISHED")
        assert len(list(tmp_path.glob(f"*/{JOURNAL}"))) == 2

    def test_a_restart_of_a_finished_run_is_a_new_run(self, tmp_path):
        first = Tracker.start(config(None), tmp_path, tmp_path)
        first.finish("FINISHED")
        assert Tracker.start(config(None), tmp_path, tmp_path, restart=True).journal != first.journal

    def test_a_restart_with_other_parameters_is_a_new_run(self, tmp_path):
        first = Tracker.start(config(None), tmp_path, tmp_path)
        first.abort()
        assert Tracker.start(config(None, cycles=9), tmp_path, tmp_path, restart=True).journal != first.journal
        same = Tracker.start(config(None), tmp_path, tmp_path)
        same.abort()
        assert Tracker.start(config(None), tmp_path, tmp_path, restart=True).journal == same.journal

    def test_an_execution_resumes_with_another_number_of_processes(self, tmp_path):
        def start(execution, processes, restart=True):
            settings = config(None, training={"processes": processes})
            return Tracker.start(settings, tmp_path, tmp_path, restart=restart, execution=execution)

        first = start("a", processes=1, restart=False)
        first.abort()
        other = start("b", processes=1)
        other.abort()
        assert other.journal != first.journal
        assert start("a", processes=2).journal == first.journal
        finished = start("b", processes=1)
        assert finished.journal == other.journal
        finished.finish("FINISHED")
        assert start("b", processes=2).journal == other.journal  # something is left to do, or it would not be asked for

    def test_no_credentials_are_written_down(self, tmp_path):
        tracker = Tracker.start(config("http://me:hunter2@127.0.0.1:9"), tmp_path, tmp_path)
        tracker.finish("FAILED", "at http://me:hunter2@127.0.0.1:9")
        assert b"hunter2" not in tracker.journal.read_bytes()
        assert read(tracker.journal)[0].event["uri"] == "http://***@127.0.0.1:9"

    def test_nothing_is_written_after_the_end(self, tmp_path):
        tracker = Tracker.start(config(None), tmp_path, tmp_path)
        tracker.finish("FINISHED")
        tracker.metrics({"accuracy": 1}, step=1)
        tracker.finish("FAILED")
        assert read(tracker.journal)[-1].event["status"] == "FINISHED"


def test_off_means_no_journal_no_helper_and_no_mlflow(run_python, tmp_path):
    code = (
        "import sys; from pathlib import Path; from kafal_pipeline.config import resolve;"
        "import kafal_pipeline.lifecycle.hooks; from kafal_pipeline.tracking import Tracker;"
        "folder = Path(sys.argv[1]); t = Tracker.start(resolve({'tracking': 'off'}), folder, folder);"
        "t.metrics({'accuracy': 1.0}, step=1); t.tags({}); t.artifact(folder); t.model(folder, [], step=1);"
        "t.finish('FINISHED');"
        "assert not list(folder.iterdir()); assert type(t).__name__ == 'NullTracker';"
        "print(sorted({'mlflow', 'torch', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    done = run_python(code, tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_both_trackers_have_the_same_interface():
    public = {name for name in vars(NullTracker) if not name.startswith("_")}
    assert public <= {name for name in vars(Tracker) if not name.startswith("_")}
    assert {name for name in vars(Tracker) if not name.startswith("_")} - public == {"start", "journal"}


def test_a_path_without_a_journal_is_a_clear_error(tmp_path, caplog):
    assert deliver.main([str(tmp_path / "absent")]) == 1
    assert "there is no such journal" in caplog.text

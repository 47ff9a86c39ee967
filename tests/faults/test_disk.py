"""A disk that is full and folders that must not be written: one message, nothing half-written, and a way on."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import kafal_pipeline
from kafal_pipeline.catalog import Atomic, Splits
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import CannotWrite, check_writable, replacing_folder, write_json, write_with
from kafal_pipeline.config import resolve
from kafal_pipeline.runs import lock as run_lock
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.tracking import Tracker
from kafal_pipeline.tracking.journal import Journal, read

RUN = "smoke/ksas-kcfu/seed_0"
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")


def failing(code, name=None):
    def write(_path):
        raise OSError(code, os.strerror(code), name)

    return write


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "Make room"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "mounted"),
        (errno.EACCES, "permission"),
        (errno.EFBIG, "ulimit"),
    ],
)
def test_what_the_user_can_mend_names_the_file_the_room_and_what_to_do(code, advice, tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(CannotWrite) as caught:
        write_with(path, failing(code))
    for part in (str(path), os.strerror(code), "MB are free", advice, "the same command again"):
        assert part in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_whole_or_absent_too(tmp_path):
    def fill():
        with replacing_folder(tmp_path / "store") as folder:
            write_json(folder / "first.json", 1)
            write_with(folder / "second", failing(errno.ENOSPC))

    with pytest.raises(CannotWrite, match=f"^{tmp_path}/store: "):  # not the temporary folder's name
        fill()
    assert not list(tmp_path.iterdir())


def test_what_a_library_made_of_the_error_does_not_hide_it(tmp_path):
    def write(path):
        try:
            failing(errno.ENOSPC)(path)
        except OSError as error:
            raise RuntimeError("saving failed") from error

    with pytest.raises(CannotWrite, match="No space left"):
        write_with(tmp_path / "a", write)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EISDIR, "Is a directory"),
        ValueError("no"),
        UserError("budget: too large"),
        PermissionError(errno.EACCES, "Permission denied", "/elsewhere/image.png"),  # of what is read meanwhile
    ],
)
def test_other_errors_stay_what_they_are(error, tmp_path):
    def write(_path):
        raise error

    with pytest.raises(type(error)) as caught:
        write_with(tmp_path / "a", write)
    assert caught.value is error


def test_a_user_error_about_reading_is_not_taken_for_one_of_writing(tmp_path):
    def write(_path):
        try:
            raise PermissionError(errno.EACCES, "Permission denied")
        except PermissionError as error:
            raise UserError("dataset.path: cannot be read") from error

    with pytest.raises(UserError, match=r"dataset\.path"):
        write_with(tmp_path / "a", write)


DATASETS = {
    "json": (lambda path: Atomic(filepath=path, dataset="json.JSONDataset"), lambda: ["x"] * 100_000),
    "csv": (lambda path: Atomic(filepath=path, dataset="pandas.CSVDataset"), lambda: pd.DataFrame(np.eye(200))),
    "parquet": (
        lambda path: Atomic(filepath=path, dataset="pandas.ParquetDataset"),
        lambda: pd.DataFrame({"a": range(9)}),
    ),
    "splits": (lambda path: Splits(filepath=path), lambda: [list(range(100_000))]),
}


@needs_full
@pytest.mark.parametrize("kind", DATASETS)
def test_every_dataset_of_the_catalog_says_that_the_disk_is_full(kind, tmp_path):
    make, value = DATASETS[kind]
    path = tmp_path / "data"
    # The temporary file is a device on which every write fails.
    (tmp_path / f".data.{os.getpid()}-{threading.get_native_id()}.tmp").symlink_to("/dev/full")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Kedro wraps it
        make(str(path)).save(value())
    assert isinstance(caught.value.__cause__, CannotWrite), caught.value
    assert f"{path}: cannot be written: No space left on device" in str(caught.value)
    assert not list(tmp_path.iterdir())


SAVE_STATES = """
import resource, sys, torch
from kafal_pipeline.catalog import ManyStates, State, States
from kafal_pipeline.common.files import CannotWrite
state = {"weight": torch.zeros(100_000)}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for kind, value in ((State, state), (States, {"a": state}), (ManyStates, {"a": {}, "b": state})):
    try:
        kind(filepath=f"{sys.argv[1]}/{kind.__name__}").save(value)
    except Exception as error:
        assert isinstance(error.__cause__, CannotWrite), repr(error)
        print(error.__cause__)
"""


def test_models_say_it_though_their_library_is_no_python(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(kafal_pipeline.__file__).parents[1])}
    command = [sys.executable, "-c", SAVE_STATES, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    for line, name in zip(lines, ("State", "States", "ManyStates"), strict=True):
        assert line.startswith(f"{tmp_path}/{name}: cannot be written: File too large")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def closed(monkeypatch):
    """A function that closes a folder to new files, which holds for an administrator too."""

    def close(place):
        allowed = tempfile.TemporaryFile

        def refuse(*arguments, dir=None, **options):
            if Path(dir) == place:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
            return allowed(*arguments, dir=dir, **options)

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)

    return close


class TestCheckWritable:
    def test_leaves_nothing(self, tmp_path):
        check_writable(tmp_path)
        check_writable(tmp_path / "not" / "there")
        assert not list(tmp_path.iterdir())

    def test_names_the_folder(self, tmp_path, closed):
        closed(tmp_path)
        with pytest.raises(CannotWrite, match=f"^{tmp_path}: cannot be written: Permission denied"):
            check_writable(tmp_path / "not" / "there")

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="only Linux has /proc")
    @pytest.mark.parametrize("folder", ["/proc", "/proc/not/there"])
    def test_permissions_alone_do_not_count(self, folder):
        with pytest.raises(CannotWrite, match=r"^/proc: cannot be written: .*Name a folder where files can be made"):
            check_writable(Path(folder))

    @pytest.mark.parametrize("below", ["", "below"])
    def test_a_file_in_the_place_of_a_folder(self, below, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(CannotWrite, match=f"{tmp_path}/file is a file where a folder should be"):
            check_writable(tmp_path / "file" / below)

    @pytest.mark.parametrize("layer", range(6))
    def test_a_run_looks_at_every_folder_before_it_begins(self, layer, tmp_path, closed):
        run = Layout(tmp_path, resolve({}))
        place = run.written[layer]
        place.mkdir(parents=True)
        closed(place)
        with pytest.raises(CannotWrite, match=str(place)):
            run_lock.Lock().acquire(run)


class Nearly:
    """A file on a disk that has room for only so many more bytes."""

    def __init__(self, file, room):
        self._file, self.room = file, room

    def write(self, content):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._file.write(content[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name):
        return getattr(self._file, name)


class TestJournal:
    @pytest.mark.parametrize("room", [0, 1, 30])
    def test_an_event_is_whole_or_not_there(self, room, tmp_path):
        journal = Journal(tmp_path / "journal.jsonl")
        journal.append("a", number=1)
        journal._file = nearly = Nearly(journal._file, room)
        with pytest.raises(CannotWrite, match=r"journal\.jsonl: cannot be written: No space left"):
            journal.append("b", number=2)
        nearly.room = 10**6
        journal.append("c", number=3)
        assert [entry.event["number"] for entry in read(journal.path)] == [1, 3]

    @pytest.fixture
    def tracker(self, tmp_path, monkeypatch):
        """A tracker whose disk has become full."""
        helper = mock.Mock()
        monkeypatch.setattr("kafal_pipeline.tracking.tracker.Helper", lambda *_: helper)
        tracker = Tracker.start(resolve({}), tmp_path, tmp_path)
        tracker._journal._file = Nearly(tracker._journal._file, 0)
        tracker.helper = helper
        return tracker

    def test_a_run_that_fails_for_it_ends_as_it_would_have(self, tracker, caplog):
        tracker.finish("FAILED", "CannotWrite: no room")
        assert tracker.helper.close.called
        assert "KILLED" in caplog.text

    def test_a_run_that_is_finished_says_so(self, tracker):
        with pytest.raises(CannotWrite, match="No space left"):
            tracker.finish("FINISHED")
        assert tracker.helper.close.called


def _can_mount():
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


on_a_small_disk = pytest.mark.skipif(not _can_mount(), reason="no small file system can be mounted here")


def sh(project, script, **environment):
    """Run shell commands in a project, with mounts that only they see."""
    return subprocess.run(
        ["unshare", "-rm", "sh", "-ec", script],
        cwd=project.folder,
        env=project.environment(PYTHON=sys.executable, **environment),
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, make_project):
    """A run with all the room it wants."""
    project = make_project(tmp_path_factory.mktemp("undisturbed") / "project")
    code, output = project.run("tracking=off")
    assert code == 0, output
    return project


def room_before(project, name):
    """Return the kB that a run has written when it comes to a file, in pages of a file system in memory."""
    data = project.folder / "data"
    target = (data / name).stat().st_mtime_ns
    sizes = [file.stat() for file in data.rglob("*") if file.is_file()]
    of_the_lock = 4  # it is gone when the run has ended
    return of_the_lock + sum(4 * -(-stat.st_size // 4096) for stat in sizes if stat.st_mtime_ns < target)


SMALL_DISK = """
mkdir data
mount -t tmpfs -o size=$SIZE none data
run="$PYTHON -m kedro run --env smoke --params $PARAMS"
set +e
$run > first.log 2>&1; echo $? > first.code
find data -type f > first.files
mount -o remount,size=256m data
$run $AGAIN > second.log 2>&1; echo $? > second.code
cp -r data kept
"""

PLACES = {  # about where the disk is full
    "the images": "02_intermediate/smoke/images/meta.json",
    "the split": "03_primary/smoke/seed_0/splits.json",
    "the pool": f"05_model_input/{RUN}/cycle_00/pool.parquet",
    "a model": f"06_models/{RUN}/cycle_00/global_model.safetensors",
    "clients' models": f"06_models/{RUN}/cycle_01/local_models/client_00001.safetensors",
    "the measures": f"07_model_output/{RUN}/cycle_01/metrics.json",
    "a figure": f"08_reporting/{RUN}/learning_curve.png",
}


def assert_one_message_then_the_same_results(project, undisturbed):
    first = (project.folder / "first.log").read_text()
    assert (project.folder / "first.code").read_text().strip() == "1", first
    assert "Traceback" not in first
    assert first.count("Error: ") == 1
    message = first[first.index("Error: ") :]
    assert message.startswith(f"Error: {project.folder}/data/")
    full = r"cannot be written: No space left on device \(\d\.\d MB are free there\)"
    of_a_checkpoint = r"the checkpoint could not be written \(.*No space left on device"
    assert re.search(f"{full}|{of_a_checkpoint}", message)
    assert ".tmp" not in message
    assert not [name for name in (project.folder / "first.files").read_text().split() if name.endswith(".tmp")]
    second = (project.folder / "second.log").read_text()
    assert (project.folder / "second.code").read_text().strip() == "0", second
    (project.folder / "data").rmdir()
    (project.folder / "kept").rename(project.folder / "data")
    assert project.results(RUN) == undisturbed.results(RUN)


@pytest.mark.slow
@on_a_small_disk
@pytest.mark.parametrize("place", PLACES)
def test_a_run_ends_with_one_message_and_finishes_once_there_is_room(place, project, undisturbed):
    size = room_before(undisturbed, PLACES[place])
    begun = "cycle_01" in PLACES[place] or "08_reporting" in PLACES[place]
    again = "--only-missing-outputs" if begun else ""
    sh(project, SMALL_DISK, SIZE=f"{size}k", PARAMS="tracking=off", AGAIN=again)
    assert_one_message_then_the_same_results(project, undisturbed)


@pytest.mark.slow
@on_a_small_disk
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_run_that_is_tracked_loses_nothing_either(share, project, undisturbed):
    from mlflow import MlflowClient

    size = int(share * room_before(undisturbed, PLACES["a figure"]))
    uri = f"sqlite:///{project.folder}/runs.db"
    sh(project, SMALL_DISK, SIZE=f"{size}k", PARAMS="seed=0", AGAIN="", MLFLOW_TRACKING_URI=uri)
    assert_one_message_then_the_same_results(project, undisturbed)
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("smoke").experiment_id])
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert len(finished) == 1
    assert len(client.get_metric_history(finished[0].info.run_id, "accuracy")) == 2


@pytest.mark.slow
@on_a_small_disk
@pytest.mark.parametrize("layer", ["", "/06_models", "/08_reporting"])
def test_a_folder_that_must_not_be_written_is_named_before_any_work(layer, project):
    script = """
    mkdir -p data$LAYER
    mount -t tmpfs none data$LAYER
    mount -o remount,ro data$LAYER
    set +e
    $PYTHON -m kedro run --env smoke > log 2>&1; echo $? > code
    find data -type f > files
    """
    sh(project, script, LAYER=layer)
    log = (project.folder / "log").read_text()
    assert (project.folder / "code").read_text().strip() == "1", log
    assert log.count("Error: ") == 1
    assert f"{project.folder}/data{layer}: cannot be written: Read-only file system" in log
    assert "Traceback" not in log
    assert not (project.folder / "files").read_text()

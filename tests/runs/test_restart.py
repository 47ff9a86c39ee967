"""A run that was interrupted goes on with the same command; one that would mix results is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DatasetError
from kedro.runner import SequentialRunner
from safetensors.torch import load_file, save_file

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import resolve
from kafal_pipeline.federation.between_rounds import cycle_state
from kafal_pipeline.lifecycle import saved_files
from kafal_pipeline.lifecycle.runner import ResumableSequentialRunner
from kafal_pipeline.models import build
from kafal_pipeline.pipelines.fal import nodes
from kafal_pipeline.runs import provenance, resume, saved_run
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.settings import current_run

ROOT = Path(__file__).parents[2]
RUN = "smoke/ksas-kcfu/seed_0"


class Killed(BaseException):
    """What no hook and no node can catch, as a SIGKILL."""


@pytest.fixture(scope="module")
def untouched(tmp_path_factory, copy_of_project, digests):
    """What a run leaves behind that was never interrupted."""
    folder = copy_of_project(tmp_path_factory.mktemp("untouched"))
    run(folder)
    return digests(folder / "data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, copy_of_project):
    """A project with a finished run in it."""
    folder = copy_of_project(tmp_path_factory.mktemp("finished"))
    run(folder)
    return folder


@pytest.fixture
def saved(finished):
    """The same where it is not known which bytes the files had."""
    path = finished / "data/07_model_output" / RUN / "provenance.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"files": {}}))
    yield finished
    path.write_text(before)


@pytest.fixture
def folder(tmp_path, copy_of_project):
    return copy_of_project(tmp_path)


def run(folder, part=None, **params):
    """Run the pipeline, or the part of it that options of `kedro run` choose."""
    bootstrap_project(folder)
    params = {"tracking": "off", "training": {"checkpoint_every": 0}, **params}
    with (
        pytest.MonkeyPatch.context() as patch,
        KedroSession.create(project_path=folder, env="smoke", runtime_params=params) as session,
    ):
        patch.chdir(folder)
        session.run(pipeline_names=["fal"], runner=ResumableSequentialRunner(), **(part or {}))


def killed(folder, monkeypatch, saves=None, node=None, **params):
    """Run until a number of rounds is written down, or a node begins."""
    with monkeypatch.context() as patch:
        if saves is not None:
            original = cycle_state.save
            count = iter(range(1, 100))

            def save(state, sites, store):
                original(state, sites, store)
                if next(count) == saves:
                    store.wait()
                    raise Killed

            patch.setattr(cycle_state, "save", save)
        else:

            def begin(*_arguments, **_options):
                raise Killed

            patch.setattr(nodes, node, begin)
        with pytest.raises(Killed):
            run(folder, **params)
    current_run.resources.close()


@pytest.fixture
def rounds_done(monkeypatch):
    """(cycle, round) of every round that is trained from now on."""
    done = []
    original = cycle_state.save

    def save(state, sites, store):
        done.append((state.cycle, state.round))
        original(state, sites, store)

    monkeypatch.setattr(cycle_state, "save", save)
    return done


@pytest.mark.parametrize(("saves", "left"), [(1, [(0, 2), (1, 1), (1, 2)]), (3, [(1, 2)]), (4, [])])
def test_training_goes_on_after_the_last_round(folder, untouched, digests, monkeypatch, rounds_done, saves, left):
    killed(folder, monkeypatch, saves=saves)
    rounds_done.clear()
    run(folder)
    assert rounds_done == left
    assert digests(folder / "data") == untouched
    assert not list((folder / "data/06_models").rglob("checkpoint"))


def test_rounds_are_written_as_often_as_the_parameters_say(folder, monkeypatch):
    with monkeypatch.context() as patch:

        def stop(*_arguments):
            raise Killed

        patch.setattr(nodes, "evaluate", stop)
        patch.setattr(resume, "forget_checkpoints", lambda *_arguments: None)
        for every, written in ((1000, 0), (0, 2)):
            with pytest.raises(Killed):
                run(folder, training={"checkpoint_every": every}, restart=True)
            current_run.resources.close()
            checkpoint = folder / "data/06_models" / RUN / "cycle_00/checkpoint"
            assert len(list(checkpoint.glob("[0-9]*"))) == written


@pytest.mark.parametrize(("node", "left"), [("query", [(1, 1), (1, 2)]), ("evaluate", [(1, 1), (1, 2)])])
def test_other_nodes_are_done_again(folder, untouched, digests, monkeypatch, rounds_done, node, left):
    killed(folder, monkeypatch, node=node)
    rounds_done.clear()
    run(folder)
    assert rounds_done == left
    assert digests(folder / "data") == untouched


def test_half_written_files_of_a_killed_process_are_removed(folder, untouched, digests, monkeypatch):
    killed(folder, monkeypatch, saves=2)
    models = folder / "data/06_models" / RUN / "cycle_00"
    (models / ".local_models.abc.tmp").mkdir()
    for name in (".local_models.abc.tmp/client_00000.safetensors", ".global_model.safetensors.1-2.tmp"):
        (models / name).write_bytes(b"half")
    run(folder)
    assert not list((folder / "data").rglob(".*.tmp"))
    assert digests(folder / "data") == untouched


def test_without_its_first_pool_a_run_begins_anew(folder, untouched, digests, monkeypatch, rounds_done):
    killed(folder, monkeypatch, saves=3)
    rounds_done.clear()
    (folder / "data/05_model_input" / RUN / "cycle_00/pool.parquet").unlink()
    run(folder)
    assert rounds_done == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert digests(folder / "data") == untouched
    assert json.loads((folder / "data/07_model_output" / RUN / "provenance.json").read_text())["finished"]


def test_a_missing_first_pool_alone_is_made_again(folder, untouched, digests):
    run(folder)
    (folder / "data/05_model_input" / RUN / "cycle_00/pool.parquet").unlink()
    run(folder, part={"only_missing_outputs": True})
    assert digests(folder / "data") == untouched


@pytest.mark.parametrize("options", [{"from_nodes": ["cycle_01.train"]}, {"only_missing_outputs": True}])
def test_parts_go_on_with_the_same_code_alone(folder, options):
    run(folder)
    record = folder / "data/07_model_output" / RUN / "provenance.json"
    found = json.loads(record.read_text())
    found["fingerprint"]["sources"] = "that of an older version"
    record.write_text(json.dumps(found))
    with pytest.raises(UserError, match="the code of query, update or federation is another"):
        run(folder, part=options)


def test_with_nothing_left_to_do_nothing_is_done(folder, monkeypatch, rounds_done):
    killed(folder, monkeypatch, saves=3)
    rounds_done.clear()
    run(folder, part={"to_nodes": ["cycle_00.evaluate"]})
    assert rounds_done == []


def test_a_finished_run_is_done_anew_with_the_same_bits(folder, untouched, digests, rounds_done):
    run(folder)
    run(folder)
    assert rounds_done == 2 * [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert digests(folder / "data") == untouched


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"lr": 0.01}}, r"training.lr: 0.05 then, 0.01 now"),
        ({"partition": {"clients": 4}}, r"partition.clients: 3 then, 4 now"),
    ],
)
def test_other_parameters_are_refused_or_begin_anew(folder, monkeypatch, rounds_done, changes, said):
    killed(folder, monkeypatch, saves=1)
    rounds_done.clear()
    with pytest.raises(UserError, match=rf"{RUN}.*{said}.*--params restart=true"):
        run(folder, **changes)
    assert rounds_done == []
    run(folder, restart=True, **changes)
    assert rounds_done == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_other_code_is_refused_or_begins_anew_if_that_is_asked_for(folder, monkeypatch, rounds_done):
    killed(folder, monkeypatch, saves=3)
    rounds_done.clear()
    record = folder / "data/07_model_output" / RUN / "provenance.json"
    found = json.loads(record.read_text())
    found["fingerprint"]["sources"] = "that of an older version"
    record.write_text(json.dumps(found))
    with pytest.raises(UserError, match="the code of query, update or federation is another"):
        run(folder)
    run(folder, restart="if_changed")
    assert rounds_done[0] == (0, 1)


def test_other_pretrained_weights_in_the_same_file_are_others(folder, monkeypatch):
    file = folder / "weights.safetensors"
    model = {"name": "resnet8", "pretrained": file.name}
    start = build("resnet8", in_channels=1, num_classes=10).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in start.items()}, file)
    killed(folder, monkeypatch, saves=3, model=model)
    save_file({name: tensor.contiguous() + 1 for name, tensor in start.items()}, file)
    with pytest.raises(UserError, match="the weights of model.pretrained are others"):
        run(folder, model=model)
    file.unlink()
    monkeypatch.chdir(folder)
    config = json.loads((folder / "data/07_model_output" / RUN / "configuration.json").read_text())
    with pytest.raises(provenance.Absent, match=r"model\.pretrained: there is no file"):
        provenance.fingerprint(Layout(folder, resolve(config)))


def test_a_split_that_was_edited_is_refused(folder, monkeypatch, untouched, digests):
    killed(folder, monkeypatch, saves=1)
    monkeypatch.setattr(resume.provenance, "fingerprint", edited(resume.provenance.fingerprint))
    with pytest.raises(UserError, match="the split is another"):
        run(folder)


def edited(fingerprint):
    return lambda run: {**fingerprint(run), "split": "edited"}


def test_a_run_without_a_finished_round_stands_in_no_ones_way(folder, monkeypatch, rounds_done):
    killed(folder, monkeypatch, node="train")
    run(folder, training={"lr": 0.01})
    assert rounds_done == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_unchanged_runs_that_may_begin_anew_go_on(folder, monkeypatch, untouched, digests, rounds_done):
    killed(folder, monkeypatch, saves=2)
    rounds_done.clear()
    run(folder, restart="if_changed")
    assert rounds_done == [(1, 1), (1, 2)]
    assert digests(folder / "data") == untouched


@pytest.mark.parametrize("change", ["shape", "type", "name", "missing"])
@pytest.mark.parametrize(
    ("file", "node"),
    [
        ("cycle_00/global_model", "cycle_01.query"),
        ("cycle_00/local_models/client_00001", "cycle_01.query"),
        ("cycle_00/local_models/broadcast_00001", "cycle_01.query"),
        ("cycle_00/global_model", "cycle_01.train"),
        ("cycle_01/global_model", "cycle_01.evaluate"),
    ],
)
def test_a_model_of_another_network_is_named(saved, file, node, change):
    path = saved / "data/06_models" / RUN / f"{file}.safetensors"
    before, state = path.read_bytes(), load_file(path)
    weight, own = state.pop("head.weight"), r"\(10, 64\) float32"
    changed = {
        "shape": (
            {"head.weight": weight[:, :5].contiguous()},
            rf"head\.weight is \(10, 5\) float32, but {own}",
        ),
        "type": ({"head.weight": weight.double()}, rf"head\.weight is \(10, 64\) float64, but {own}"),
        "name": ({"head.weight": weight, "tail": weight + 1}, rf"tail is {own}, but absent"),
        "missing": ({}, rf"head\.weight is absent, but {own}"),
    }
    instead, message = changed[change]
    save_file(state | instead, path)
    try:
        with pytest.raises(UserError, match=rf"{file}\.safetensors: {message} in the model of this run.*Remove it"):
            run(saved, {"from_nodes": [node]})
    finally:
        path.write_bytes(before)


def first(column, value):
    """Return what puts a value into the first row."""
    return lambda table: table.assign(**{column: [value, *table[column][1:]]})


@pytest.mark.parametrize(
    ("file", "node", "change", "message"),
    [
        ("cycle_00/pool", "cycle_01.query", first("sample", 10**6), r"row 0: sample must be from 0 to 1437"),
        ("cycle_00/pool", "cycle_01.annotate", first("client", -1), r"row 0: client must be from 0"),
        ("cycle_00/pool", "cycle_01.query", lambda table: table[:0], "it has no rows"),
        ("cycle_01/pool", "cycle_01.train", lambda table: pd.concat([table, table]), "the sample occurs twice"),
        ("cycle_01/pool", "cycle_01.evaluate", first("label", 7), r"label must be that of the sample"),
        ("cycle_01/queried", "cycle_01.annotate", first("sample", 10**6), "is not in that client's pool"),
        ("cycle_01/queried", "cycle_01.annotate", lambda table: pd.concat([table, table]), "is queried twice"),
    ],
)
def test_a_table_of_something_else_is_named(saved, file, node, change, message):
    (path,) = (saved / "data").glob(f"*/{RUN}/{file}.parquet")
    before = path.read_bytes()
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    named = re.escape(path.relative_to(saved).as_posix())
    try:
        with pytest.raises(UserError, match=rf"{named}: .*{message}.*Remove it"):
            run(saved, {"from_nodes": [node]})
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("file", "node"),
    [
        ("05_model_input/{}/cycle_00/pool.parquet", "cycle_01.query"),
        ("05_model_input/{}/cycle_01/pool.parquet", "cycle_01.train"),
        ("06_models/{}/cycle_00/global_model.safetensors", "cycle_01.query"),
        ("06_models/{}/cycle_00/local_models", "cycle_01.query"),
        ("07_model_output/{}/cycle_00/rounds.parquet", "cycle_01.query"),
        ("07_model_output/{}/cycle_00/train_cost.json", "cycle_00.evaluate"),
        ("07_model_output/{}/cycle_00/metrics.json", "report.summarise"),
        ("07_model_output/{}/cycle_01/queried.parquet", "cycle_01.annotate"),
        ("07_model_output/{}/cycle_01/query_cost.json", "cycle_01.evaluate"),
        ("07_model_output/{}/cycle_01/metrics.json", "report.summarise"),
    ],
)
def test_a_result_that_is_not_what_was_saved_is_named(finished, file, node):
    """One bit is enough, or a file more in a folder."""
    path = finished / "data" / file.format(RUN)
    record = finished / "data/07_model_output" / RUN / "provenance.json"
    before = record.read_bytes()
    changed = path / "client_00099.safetensors" if path.is_dir() else path
    content = b"" if path.is_dir() else path.read_bytes()
    changed.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:] if content else b"")
    try:
        with pytest.raises(UserError, match=rf"{path.name}: not what the run saved there.*--only-missing-outputs"):
            run(finished, {"from_nodes": [node]})
    finally:
        changed.write_bytes(content) if content else changed.unlink()
        record.write_bytes(before)


def test_digests_are_those_of_the_last_command(finished):
    """What a part of the pipeline has made anew is what the next one expects."""
    record = finished / "data/07_model_output" / RUN / "provenance.json"
    before = json.loads(record.read_text())["files"]
    names = {name.removeprefix("cycle_01.") for name in before if name.startswith("cycle_01.")}
    assert names == {
        *("pool", "queried", "query_cost", "query_memory"),
        *("global_model", "local_models", "rounds", "train_cost", "metrics"),
    }
    run(finished, {"from_nodes": ["cycle_01.query"]})
    after = json.loads(record.read_text())["files"]
    assert after.keys() == before.keys()
    same = {name for name in before if before[name] == after[name]}
    assert {"cycle_01.pool", "cycle_01.global_model", "cycle_00.metrics"} <= same
    assert "cycle_01.train_cost" not in same  # it holds times
    run(finished, {"from_nodes": ["cycle_01.evaluate"]})


def test_what_was_saved_before_a_kill_is_checked_too(folder, monkeypatch):
    killed(folder, monkeypatch, node="evaluate")
    record = folder / "data/07_model_output" / RUN / "provenance.json"
    assert "cycle_00.global_model" in json.loads(record.read_text())["files"]
    path = folder / "data/05_model_input" / RUN / "cycle_00/pool.parquet"
    pd.read_parquet(path)[1:].to_parquet(path)
    with pytest.raises(UserError, match=r"pool\.parquet: not what the run saved there"):
        run(folder)


def test_what_was_saved_without_a_digest_is_made_again(folder, monkeypatch, untouched, digests):
    """A process may be killed between a file and the note of its digest: it may be another file since."""
    with monkeypatch.context() as patch:
        original = saved_files.SavedFiles.note

        def note(self, replaced=()):
            if current_run.node == "cycle_01.train":
                raise Killed
            original(self, replaced)

        patch.setattr(saved_files.SavedFiles, "note", note)
        with pytest.raises(Killed):
            run(folder)
    current_run.resources.close()
    path = folder / "data/05_model_input" / RUN / "cycle_01/pool.parquet"
    assert path.is_file()
    assert (
        "cycle_01.pool"
        not in json.loads((folder / "data/07_model_output" / RUN / "provenance.json").read_text())["files"]
    )
    pool = pd.read_parquet(path)
    pool.assign(label=0).to_parquet(path)
    run(folder)
    assert digests(folder / "data") == untouched


@pytest.mark.parametrize("source", ["there", "gone"])
def test_images_that_were_changed_are_not_trained_on(tmp_path, copy_of_project, digests, source, monkeypatch):
    """The store of the images is made again from its source, or refused where there is none."""
    folder = copy_of_project(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {
        f"{part}_{what}": value
        for part, size in (("train", 400), ("test", 60))
        for what, value in (
            ("images", rng.integers(0, 256, (size, 8, 8, 1), dtype=np.uint8)), ("labels", np.arange(size) % 4)
        )
    }  # fmt: skip
    (folder / "data/01_raw").mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data/01_raw/mine.npz", **arrays)
    here = {"dataset": {"name": "mine", "label": None}}
    images = folder / "data/02_intermediate/mine/images/train_images.npy"
    run(folder, **here)
    before = digests(folder / "data")
    with monkeypatch.context() as patch:
        patch.setattr(nodes, "evaluate", lambda *_arguments, **_options: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(folder, **here)
    current_run.resources.close()
    np.save(images, 255 - np.load(images))
    if source == "gone":
        (folder / "data/01_raw/mine.npz").unlink()
        with pytest.raises(UserError, match="train_images.npy"):
            run(folder, **here)
    else:
        run(folder, **here)
        assert digests(folder / "data") == before


@pytest.mark.parametrize(
    ("pipeline", "part", "trains"),
    [
        ("fal", {}, True),
        ("fal", {"from_nodes": ["cycle_01.train"]}, True),
        ("report", {}, False),
        ("data", {}, False),
        ("doctor", {}, False),
        ("compare", {}, True),
        ("compare", {"run_missing": False}, False),
    ],
)
def test_what_trains_is_known_when_a_pipeline_begins(finished, monkeypatch, pipeline, part, trains):
    """What Ctrl-C says depends on it."""
    monkeypatch.setattr(SequentialRunner, "_run", lambda *_, **__: None)
    compare = {"compare": part} if pipeline == "compare" else {}
    bootstrap_project(finished)
    params = {"tracking": "off", **compare}
    monkeypatch.chdir(finished)
    with KedroSession.create(project_path=finished, env="smoke", runtime_params=params) as session:
        session.run(pipeline_names=[pipeline], runner=SequentialRunner(), **(part if "from_nodes" in part else {}))
    assert current_run.kind.trains == trains


def test_the_report_of_an_interrupted_run_says_that_the_same_command_goes_on(folder, monkeypatch):
    killed(folder, monkeypatch, saves=1)
    with pytest.raises(UserError, match="stopped in cycle 0 of 0..1. Finish it first: the command that it was started"):
        saved_run.parameters_of(folder, RUN)


def test_a_part_of_a_run_that_never_ran_is_refused_before_it_begins(finished):
    with pytest.raises(UserError, match=r"--from-nodes: the run .*seed_99 has not come that far.*without --from-nodes"):
        run(finished, {"from_nodes": ["cycle_01.train"]}, seed=99)
    assert not list((finished / "data").rglob("seed_99/cycle_*"))


def test_a_result_that_was_removed_from_a_finished_run_is_named(finished):
    path = finished / f"data/05_model_input/{RUN}/cycle_01/pool.parquet"
    record = finished / "data/07_model_output" / RUN / "provenance.json"
    before, noted = path.read_bytes(), record.read_bytes()
    path.unlink()
    try:
        with pytest.raises(DatasetError, match=r"cycle_01/pool.parquet: there is no such file.*--only-missing-outputs"):
            run(finished, {"from_nodes": ["cycle_01.train"]})
    finally:
        path.write_bytes(before)
        record.write_bytes(noted)

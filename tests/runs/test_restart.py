"""A run that was interrupted resumes with the same command; one that would mix results is refused."""

from __future__ import annotations

import json

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.runner import SequentialRunner
from safetensors.torch import save_file

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import resolve
from kafal_pipeline.models.factory import build
from kafal_pipeline.pipelines.fal import nodes
from kafal_pipeline.runs import provenance, resume, saved_run
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.settings import current_run

from .conftest import RUN, Killed, killed, run


@pytest.mark.parametrize(("saves", "left"), [(1, [(0, 2), (1, 1), (1, 2)]), (3, [(1, 2)]), (4, [])])
def test_training_resumes_after_the_last_round(folder, killed_here, untouched, digests, rounds_done, saves, left):
    killed_here(saves=saves)
    rounds_done.clear()
    run(folder)
    assert rounds_done == left
    assert digests(folder / "data") == untouched
    assert not list((folder / "data/06_models").rglob("checkpoint"))


def test_rounds_are_written_as_often_as_the_parameters_say(folder, monkeypatch):
    with monkeypatch.context() as patch:

        def stop(*_arguments, **_keywords):
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
def test_other_nodes_are_done_again(folder, killed_here, untouched, digests, rounds_done, node, left):
    killed_here(node=node)
    rounds_done.clear()
    run(folder)
    assert rounds_done == left
    assert digests(folder / "data") == untouched


def test_half_written_files_of_a_killed_process_are_removed(folder, killed_here, untouched, digests):
    killed_here(saves=2)
    models = folder / "data/06_models" / RUN / "cycle_00"
    (models / ".local_models.abc.tmp").mkdir()
    for name in (".local_models.abc.tmp/client_00000.safetensors", ".global_model.safetensors.1-2.tmp"):
        (models / name).write_bytes(b"half")
    run(folder)
    assert not list((folder / "data").rglob(".*.tmp"))
    assert digests(folder / "data") == untouched


def test_without_its_first_pool_a_run_begins_again(folder, killed_here, untouched, digests, rounds_done):
    killed_here(saves=3)
    rounds_done.clear()
    (folder / "data/05_model_input" / RUN / "cycle_00/pool.parquet").unlink()
    run(folder)
    assert rounds_done == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert digests(folder / "data") == untouched
    assert json.loads((folder / "data/07_model_output" / RUN / "provenance.json").read_text())["finished"]


def test_a_missing_first_pool_alone_is_made_again(finished_here, untouched, digests):
    folder = finished_here
    (folder / "data/05_model_input" / RUN / "cycle_00/pool.parquet").unlink()
    run(folder, part={"only_missing_outputs": True})
    assert digests(folder / "data") == untouched


@pytest.mark.parametrize("options", [{"from_nodes": ["cycle_01.train"]}, {"only_missing_outputs": True}])
def test_parts_resume_with_the_same_code_alone(finished_here, options):
    folder = finished_here
    record = folder / "data/07_model_output" / RUN / "provenance.json"
    found = json.loads(record.read_text())
    found["fingerprint"]["sources"] = "that of an older version"
    record.write_text(json.dumps(found))
    with pytest.raises(UserError, match="the code of query, update or federation is another"):
        run(folder, part=options)


def test_with_nothing_left_to_do_nothing_is_done(folder, killed_here, rounds_done):
    killed_here(saves=3)
    rounds_done.clear()
    run(folder, part={"to_nodes": ["cycle_00.evaluate"]})
    assert rounds_done == []


def test_a_finished_run_is_done_again_with_the_same_bits(finished_here, untouched, digests, rounds_done):
    run(finished_here)
    assert rounds_done == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert digests(finished_here / "data") == untouched


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"lr": 0.01}}, r"training.lr: 0.05 then, 0.01 now"),
        ({"partition": {"clients": 4}}, r"partition.clients: 3 then, 4 now"),
    ],
)
def test_other_parameters_are_refused_or_begin_again(folder, killed_here, rounds_done, changes, said):
    killed_here(saves=1)
    rounds_done.clear()
    with pytest.raises(UserError, match=rf"{RUN}.*{said}.*--params restart=true"):
        run(folder, **changes)
    assert rounds_done == []
    run(folder, restart=True, **changes)
    assert rounds_done == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_other_code_is_refused_or_begins_again_if_that_is_asked_for(folder, killed_here, rounds_done):
    killed_here(saves=3)
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
    killed(folder, saves=3, model=model)
    save_file({name: tensor.contiguous() + 1 for name, tensor in start.items()}, file)
    with pytest.raises(UserError, match="the weights of model.pretrained are others"):
        run(folder, model=model)
    file.unlink()
    monkeypatch.chdir(folder)
    config = json.loads((folder / "data/07_model_output" / RUN / "configuration.json").read_text())
    with pytest.raises(provenance.Absent, match=r"model\.pretrained: there is no file"):
        provenance.fingerprint(Layout(folder, resolve(config)))


def test_a_split_that_was_edited_is_refused(folder, killed_here, monkeypatch, untouched, digests):
    killed_here(saves=1)
    monkeypatch.setattr(resume.provenance, "fingerprint", edited(resume.provenance.fingerprint))
    with pytest.raises(UserError, match="the split is another"):
        run(folder)


def edited(fingerprint):
    return lambda run: {**fingerprint(run), "split": "edited"}


def test_a_run_without_a_finished_round_stands_in_no_ones_way(folder, monkeypatch, rounds_done):
    killed(folder, node="train")
    run(folder, training={"lr": 0.01})
    assert rounds_done == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_unchanged_runs_that_may_begin_again_resume(folder, killed_here, untouched, digests, rounds_done):
    killed_here(saves=2)
    rounds_done.clear()
    run(folder, restart="if_changed")
    assert rounds_done == [(1, 1), (1, 2)]
    assert digests(folder / "data") == untouched


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


def test_the_report_of_an_interrupted_run_says_that_the_same_command_resumes(folder, killed_here):
    killed_here(saves=1)
    with pytest.raises(UserError, match="stopped in cycle 0 of 0..1. Finish it first: the command that it was started"):
        saved_run.parameters_of(folder, RUN)


def test_a_part_of_a_run_that_never_ran_is_refused_before_it_begins(finished):
    with pytest.raises(UserError, match=r"--from-nodes: the run .*seed_99 has not come that far.*without --from-nodes"):
        run(finished, {"from_nodes": ["cycle_01.train"]}, seed=99)
    assert not list((finished / "data").rglob("seed_99/cycle_*"))

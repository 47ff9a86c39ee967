"""A run that waits for labels resumes with the same command, and does nothing twice."""

from __future__ import annotations

import json

import pytest

from kafal_pipeline.common.errors import UserError, Waiting
from kafal_pipeline.config import resolve
from kafal_pipeline.pipelines.fal import nodes
from kafal_pipeline.runs import lock, provenance, resume, waits
from kafal_pipeline.runs.layout import Layout

from .conftest import RUN, run

FIRST, LATER = "draw_initial_pool", "annotate_queried"


def waiting(folder, node, **options):
    """Run until a node finds labels missing."""
    with pytest.MonkeyPatch.context() as patch:

        def wait(*_arguments):
            raise Waiting("2 images wait for labels")

        patch.setattr(nodes, node, wait)
        with pytest.raises(Waiting):
            run(folder, **options)


def record(folder):
    return json.loads((folder / "data/07_model_output" / RUN / "provenance.json").read_text())


def here(folder, **changes):
    """The run in a folder with the parameters that it has there, or others."""
    saved = json.loads((folder / "data/07_model_output" / RUN / "configuration.json").read_text())
    return Layout(folder, resolve({**saved, **changes}))


@pytest.fixture
def queries(monkeypatch):
    """The cycles whose query is made from now on."""
    made = []
    original = nodes.query

    def query(resources, cycle, *rest):
        made.append(cycle)
        return original(resources, cycle, *rest)

    monkeypatch.setattr(nodes, "query", query)
    return made


def test_a_run_resumes_where_it_waited_and_its_query_is_not_made_again(
    folder, untouched, digests, rounds_done, queries
):
    for _ in range(3):
        waiting(folder, LATER)
    assert (rounds_done, queries) == ([(0, 1), (0, 2)], [1])
    found = record(folder)
    assert (found["finished"], found["error"]) == (None, None)
    assert provenance.state(here(folder)) == "interrupted"
    assert waits.waits(here(folder)) and not waits.waits(here(folder, cycles=1))
    assert not lock.held(here(folder))
    run(folder)
    assert (rounds_done, queries) == ([(0, 1), (0, 2), (1, 1), (1, 2)], [1])
    assert not waits.waits(here(folder))
    assert digests(folder / "data") == untouched
    assert record(folder)["execution"] == found["execution"]


def test_a_run_that_waited_for_its_first_pool_keeps_its_name(folder, untouched, digests):
    names = set()
    for _ in range(3):
        waiting(folder, FIRST)
        (note,) = folder.glob(f"data/09_tracking/{RUN}/waiting.json")
        names.add(json.loads(note.read_text())["execution"])
    assert not (folder / "data/07_model_output").exists()
    run(folder)
    assert names == {record(folder)["execution"]}
    assert digests(folder / "data") == untouched
    assert not note.exists()


def test_other_parameters_make_another_run_of_one_that_waited_for_its_first_pool(folder):
    waiting(folder, FIRST)
    (note,) = folder.glob(f"data/09_tracking/{RUN}/waiting.json")
    name = json.loads(note.read_text())["execution"]
    run(folder, federation={"rounds": 1}, cycles=1)
    assert record(folder)["execution"] != name


def test_a_finished_run_stays_until_the_first_pool_of_another_is_there(finished_here, untouched, digests):
    before = record(finished_here)
    waiting(finished_here, FIRST, restart=True)
    assert record(finished_here) == before
    assert digests(finished_here / "data") == untouched
    run(finished_here, restart=True)
    assert record(finished_here)["execution"] != before["execution"]


def test_a_run_that_starts_again_is_another_than_the_one_that_waited(folder):
    waiting(folder, LATER)
    before = record(folder)["execution"]
    run(folder, restart=True)
    assert record(folder)["execution"] != before


def test_other_parameters_are_refused_as_of_an_interrupted_run(folder):
    waiting(folder, LATER)
    with pytest.raises(UserError, match="training.lr: 0.05 then, 0.01 now"):
        run(folder, training={"lr": 0.01})


@pytest.mark.parametrize(
    "part", [{"from_nodes": ["cycle_01.annotate"]}, {"only_missing_outputs": True}, {"to_nodes": ["cycle_01.train"]}]
)
def test_parts_of_a_run_that_waited_are_run(folder, untouched, digests, part):
    waiting(folder, LATER)
    waiting(folder, LATER, part=part)
    run(folder, part=part)
    run(folder)
    assert digests(folder / "data") == untouched


def test_what_a_cycle_needs_to_continue_may_change_while_it_waits(tmp_path):
    """The oracle's runs, which are asked in one way only, have nothing of it in their fingerprint."""
    asked = {"annotation": {"source": "people"}}
    run, other = (resolve({**asked, "annotation": {**asked["annotation"], "complete": share}}) for share in (1.0, 0.5))
    assert provenance.configuration_digest(run) == provenance.configuration_digest(other)
    waits.note(Layout(tmp_path, run), first_pool=True)
    name = waits.execution(Layout(tmp_path, run))
    assert name and waits.execution(Layout(tmp_path, other)) == name
    assert not waits.waits(Layout(tmp_path, resolve({})))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"configuration": 1}'])
def test_a_damaged_note_is_none(tmp_path, content):
    run = Layout(tmp_path, resolve({}))
    waits.note(run, first_pool=True)
    run.waiting.write_text(content)
    assert (waits.waits(run), waits.execution(run)) == (False, "")
    waits.over(run)
    waits.over(run)
    assert resume.finished_otherwise(run) == ""

"""The pipelines `annotate_import` and `annotate_status`."""

from __future__ import annotations

from dataclasses import asdict, replace

import pandas as pd
import pytest
from wards import CLASSES, RUN, request, sample, write_manifest

from kafal_pipeline.annotation.answers import AnswerStore
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import write_json
from kafal_pipeline.config import resolve
from kafal_pipeline.pipelines.annotate import imports, status
from kafal_pipeline.runs import provenance, waits
from kafal_pipeline.runs.layout import Layout

HEADER = "sample,cycle,label,annotator,status\n"


def parameters(**annotation) -> dict:
    return {
        "dataset": {"name": "wards"},
        "query": "entropy",
        "update": "fedavg",
        "annotation": {"source": "people", **annotation},
    }


@pytest.fixture
def layout(tmp_path, requests):
    for asked in requests:
        write_manifest(tmp_path / "data/annotation", asked)
    found = Layout(tmp_path, resolve(parameters()))
    assert found.name == RUN
    return found


@pytest.fixture
def run(layout):
    """Return a function that runs a pipeline of one node, and returns what it says."""

    def call(create_pipeline, **annotation):
        (node,) = create_pipeline(layout.root).nodes
        return node.run({"parameters": parameters(**annotation)})["closing_lines"]

    return call


@pytest.fixture
def table(layout):
    """Return a function that writes a table into the project's folder, and returns its name."""

    def write(*rows):
        lines = [f"{sample(number)},{cycle},{label},{who},{what}\n" for number, cycle, label, who, what in rows]
        (layout.root / "filled.csv").write_text(HEADER + "".join(lines), encoding="utf-8")
        return "filled.csv"

    return write


ANSWERS = [
    *[(number, 0, "cat", "ann", "") for number in range(6)],
    (10, 0, "", "ann", "skipped"),
    (11, 0, "", "ann", "unusable"),
    (12, 0, "", "ann", "unknown_class"),
    (13, 0, "", "ann", ""),
    (20, 1, "cat", "ann", ""),
    (20, 1, "dog", "ben", ""),
]


def test_an_import_says_what_is_new_what_is_open_and_what_to_do(run, table, layout):
    printed = run(imports.create_pipeline, file=table(*ANSWERS))
    assert printed.splitlines() == [
        "11 answers from a table: 11 new, 0 there already, 1 image without an answer.",
        "Conflicts, which wait for one more person or for one to change their mind (1):",
        f"  {sample(20)}: ann says cat, ben says dog",
        "Still to be answered: 8 images.",
        f"Next: label 7 images, with kedro run --pipeline annotate or in the files of data/annotation/{RUN}/cycle_01/"
        "client_000 and others; then kedro run --pipeline fal",
    ]
    assert len(AnswerStore(layout.answers).read_all()) == 11


def test_the_status_is_a_table_by_client_and_cycle_with_test_images_apart(run, table):
    run(imports.create_pipeline, file=table(*ANSWERS))
    assert run(status.create_pipeline).splitlines()[:12] == [
        "client             cycle  images       asked  labelled  skipped  unusable  unknown class  conflicts  open",
        "-----------------  -----  -----------  -----  --------  -------  --------  -------------  ---------  ----",
        "client 0 (Ward 0)      0  test images      2         2        0         0              0          0     0",
        "client 0 (Ward 0)      0  training         4         4        0         0              0          0     0",
        "client 1 (Ward 1)      0  training         4         0        1         1              1          0     1",
        "client 0 (Ward 0)      1  training         4         0        0         0              0          1     3",
        "client 1 (Ward 1)      1  training         3         0        0         0              0          0     3",
        "all                       training        15         4        1         1              1          1     7",
        "Conflicts, which wait for one more person or for one to change their mind (1):",
        f"  {sample(20)}: ann says cat, ben says dog",
        *run(status.create_pipeline).splitlines()[10:],
    ]


def test_what_is_enough_lets_the_run_resume(run, table):
    rows = [(number, 1, "cat", "ann", "") for number in [*range(20, 24), *range(30, 32)]]
    printed = run(imports.create_pipeline, file=table(*rows), complete=0.6)
    assert printed.splitlines()[-1] == "Next: kedro run --pipeline fal"
    assert "Next: label 1 image" in run(status.create_pipeline, complete=1.0)


def test_a_finished_run_is_not_said_to_resume(run, layout, table):
    record = provenance.Provenance({}, "2026-01-01", None, {})
    write_json(layout.provenance, asdict(record))
    rows = [(number, 1, "cat", "ann", "") for number in (*range(20, 24), *range(30, 33))]
    printed = run(imports.create_pipeline, file=table(*rows))
    assert printed.splitlines()[-1].startswith("The run has finished: data/08_reporting/wards/")
    waits.note(layout, first_pool=True)  # it was begun again since
    assert run(status.create_pipeline).splitlines()[-1] == "Next: kedro run --pipeline fal"


def test_files_of_images_in_reserve_are_those_that_the_run_has_written(run, layout, table):
    plain = request(2, 0, range(34, 38))
    asked = replace(plain, samples=plain.samples[:2], reserve=plain.samples[2:])
    place = write_manifest(layout.requests.parents[2], asked)
    printed = run(imports.create_pipeline, file=table((34, 2, "cat", "ann", ""), (35, 2, "", "ann", "skipped")))
    following = "client_000/refill_*; then kedro run --pipeline fal"
    assert printed.endswith(f"{following}. Files of 1 of them are not written yet: the last command writes them.")
    (place / "refill_001").mkdir()
    assert run(status.create_pipeline).endswith(following)


def test_an_image_asked_for_again_counts_once(run, layout, table):
    write_manifest(layout.requests.parents[2], request(2, 0, range(22, 26)))
    lines = run(status.create_pipeline).splitlines()
    assert next(line for line in lines if line.startswith("all")).split()[2] == "17"
    run(imports.create_pipeline, file=table((22, 2, "cat", "", "")))
    assert "client 0 (Ward 0)      1  training         4         1" in run(status.create_pipeline)


def test_an_empty_annotator_is_the_configured_one_or_the_login(run, layout, table, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "karl")
    run(imports.create_pipeline, file=table((0, 0, "cat", "", "")))
    run(imports.create_pipeline, file=table((0, 0, "cat", "", "")), annotator="eva")
    assert {answer.annotator for answer in AnswerStore(layout.answers).read_all()} == {"karl", "eva"}


def test_a_user_without_a_name_is_somebody(monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert imports.login() == "unknown"


def test_a_label_other_than_the_one_trained_with_is_named(run, layout, table):
    run(imports.create_pipeline, file=table((3, 0, "cat", "", "")))
    pool = layout.pools / "cycle_00" / "pool.parquet"
    pool.parent.mkdir(parents=True)
    pd.DataFrame({"sample": [2, 3, 4], "label": [-1, CLASSES.index("cat"), -1]}).to_parquet(pool)
    printed = run(imports.create_pipeline, file=table((3, 0, "dog", "", "")))
    assert f"  {sample(3)}: cat, now dog" in printed
    pool.write_bytes(b"damaged")  # the run's own commands say so
    assert "1 there already" in run(imports.create_pipeline, file=table((3, 0, "dog", "", "")))


def test_a_file_of_another_run_of_the_data_set_names_it(run, layout, table):
    write_manifest(layout.requests.parents[2], request(0, 0, range(50, 53), run="wards/random-fedavg/seed_7"))
    with pytest.raises(UserError, match="answers the run wards/random-fedavg/seed_7, not "):
        run(imports.create_pipeline, file=table((50, 0, "cat", "", "")))


def test_a_path_is_taken_from_the_projects_folder_or_as_it_is(run, layout, table):
    table((0, 0, "cat", "", ""))
    assert "1 new" in run(imports.create_pipeline, file=str(layout.root / "filled.csv"))


def test_no_file_is_named(run):
    with pytest.raises(UserError, match="annotation.file: name the file"):
        run(imports.create_pipeline)


@pytest.mark.parametrize("create_pipeline", [imports.create_pipeline, status.create_pipeline])
def test_a_run_that_has_asked_for_nothing_says_which_have(run, layout, create_pipeline, tmp_path):
    (node,) = create_pipeline(layout.root).nodes
    with pytest.raises(UserError) as error:
        node.run({"parameters": {**parameters(file="x"), "seed": 5}})
    assert "the run wards/entropy-fedavg/seed_5 has asked people for nothing yet" in str(error.value)
    assert f"Runs that have: {RUN}." in str(error.value)
    with pytest.raises(UserError, match="annotation.source is oracle"):
        node.run({"parameters": {"annotation": {"file": "x"}}})


def test_the_project_has_both_pipelines():
    from kafal_pipeline.pipeline_registry import register_pipelines

    assert {"annotate_import", "annotate_status"} <= set(register_pipelines())

"""Label Studio's exports; `label_studio_export.json` is one of Label Studio 1.23.2, of tasks that `export` made."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from wards import CLASSES, RUN, request, sample

from kafal_pipeline.annotation.exchange.read import answers_in
from kafal_pipeline.common.errors import UserError

EXPORT = Path(__file__).with_name("label_studio_export.json")


@pytest.fixture
def asked():
    """What the tasks of the export ask."""
    return [request(0, 0, range(6)), request(1, 0, range(20, 32))]


@pytest.fixture
def task(asked):
    """Return a function that returns a task with annotations."""

    def make(*annotations, number=20, **data):
        of_request = {"sample": sample(number), "run": RUN, "cycle": 1, "client": 0, "query": asked[1].query}
        return {
            "id": 7,
            "data": {**of_request, **data},
            "annotations": list(annotations),
            "drafts": [],
            "predictions": [],
        }

    return make


def chosen(label=None, status=None, person=1, at="2026-01-02T03:04:05.678901Z", **more):
    pairs = [("label", label), ("status", status)]
    result = [
        {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [choice]}}
        for name, choice in pairs
        if choice
    ]
    return {
        "completed_by": person,
        "result": result,
        "was_cancelled": False,
        "updated_at": at,
        "lead_time": 2.5,
        **more,
    }


@pytest.fixture
def read(written, asked):
    def run(*tasks):
        return answers_in(written(json.dumps(tasks)), asked, "login")

    return run


def only(found):
    (answer,) = found.by_client[0]
    return answer


def test_an_export_of_label_studio_is_read(written, asked):
    text = EXPORT.read_text(encoding="utf-8")
    query = json.loads(text)[0]["data"]["query"]
    found = answers_in(written(text.replace(query, asked[1].query)), asked, "login")
    said = [(answer.sample, answer.annotator, answer.label or answer.status) for answer in found.by_client[0]]
    one, two = "label_studio_1", "label_studio_2"
    assert found.source == "label_studio"
    assert said == [
        (sample(20), one, "cat"),
        (sample(20), two, "dog"),
        (sample(21), one, CLASSES[2]),
        (sample(21), two, CLASSES[2]),
        (sample(22), one, "unusable"),
        (sample(23), one, "unknown_class"),
        (sample(24), one, "skipped"),
        (sample(25), one, "skipped"),  # the result is left over from before it was skipped
        (sample(26), one, "open"),  # submitted without a choice
        (sample(28), one, "dog"),  # changed from cat
    ]
    assert found.disputed == {sample(27): "cat and unusable"}
    assert found.empty == 3  # a draft, a prediction and an annotation that was deleted
    first = found.by_client[0][0]
    assert (first.time, first.seconds) == ("2026-11-25T17:17:06.243+00:00", 3.2)
    assert (first.cycle, first.query) == (1, asked[1].query)


def test_the_fixture_is_of_tasks_that_export_makes(asked):
    data = json.loads(EXPORT.read_text(encoding="utf-8"))[0]["data"]
    expected = {"sample": sample(20), "run": RUN, "cycle": 1, "client": 0, "rank": 0}
    assert {key: data[key] for key in expected} == expected
    assert "label" not in data


def test_drafts_and_predictions_are_no_answers(read, task):
    unsubmitted = task()
    unsubmitted["drafts"] = unsubmitted["predictions"] = [{"result": chosen("cat")["result"]}]
    found = read(unsubmitted)
    assert (dict(found.by_client), found.empty) == ({}, 1)


def test_who_annotated_is_the_same_person_in_every_kind_of_export(read, task):
    person = {"id": 2, "email": "ann@example.org", "first_name": "", "last_name": ""}
    assert only(read(task(chosen("cat", person=person)))).annotator == "label_studio_2"
    assert only(read(task(chosen("cat", person=2)))).annotator == "label_studio_2"
    assert only(read(task(chosen("cat", person=None)))).annotator == "login"


def test_of_two_annotations_by_one_person_the_later_counts(read, task):
    late, early = chosen("dog"), chosen("cat", at="2026-01-01T00:00:00Z")
    assert only(read(task(late, early))).label == "dog"
    assert only(read(task(early, late))).label == "dog"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"at": "2026-01-02T05:04:05+02:00"}, "2026-01-02T03:04:05.000+00:00"),
        ({"at": None, "created_at": "2026-01-02T03:04:05.5Z"}, "2026-01-02T03:04:05.500+00:00"),
    ],
)
def test_times_are_those_of_the_annotation(read, task, given, expected):
    assert only(read(task(chosen("cat", **given)))).time == expected


def test_a_time_in_the_future_would_hide_all_later_answers(read, task):
    assert only(read(task(chosen("cat", at="2999-01-01T00:00:00Z")))).time < "2999"


@pytest.mark.parametrize("seconds", [None, "3", True, -1, float("nan"), float("inf"), 1e300])
def test_a_lead_time_that_is_none_is_not_known(read, task, seconds):
    assert only(read(task(chosen("cat", lead_time=seconds)))).seconds is None


def test_tasks_are_matched_by_our_ids_not_by_order_or_number(read, task):
    found = read(task(chosen("dog"), number=25), task(chosen("cat"), number=20))
    assert {answer.sample: answer.label for answer in found.by_client[0]} == {sample(25): "dog", sample(20): "cat"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"run": "wards/random-fedavg/seed_3"}, "task 7: it answers the run wards/random-fedavg/seed_3, not " + RUN),
        ({"query": "0" * 16}, "exported for another query"),
        ({"sample": None}, "'' is no id"),
        ({"sample": ["x"]}, "'' is no id"),
        ({"query": None, "cycle": 0}, "was asked for in cycle 1, not '0'"),
        ({"sample": sample(99)}, "unknown image"),
    ],
)
def test_tasks_of_something_else_are_refused(read, task, data, said):
    with pytest.raises(UserError) as error:
        read(task(chosen("cat"), **data))
    assert said in str(error.value)


def test_an_unknown_class_is_named_with_its_task(read, task):
    with pytest.raises(UserError, match="task 7: unknown class 'catt'. Did you mean 'cat'"):
        read(task(chosen("catt")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (EXPORT.read_text()[:5000], "no whole JSON file"),
        ('{"tasks": []}', "no list of tasks"),
        ("[1]", "no list of tasks"),
        ("[" * 100_000, "no list of tasks"),
        ('[{"image": "x", "label": "cat", "annotation_id": 1, "lead_time": 2}]', "JSON_MIN"),
        ('[{"data": {"image": "x"}}]', "tasks without annotations"),
        ("[" + "9" * 5000 + "]", "no whole JSON file"),
    ],
)
def test_other_json_is_refused_by_name(written, asked, text, said):
    with pytest.raises(UserError, match=said):
        answers_in(written(text), asked, "login")


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [None], [{"value": 1}], [{"value": {"choices": [1, None]}}]])
def test_parts_of_another_type_never_crash(read, task, value):
    for key in ("result", "completed_by", "updated_at", "was_cancelled"):
        with suppress(UserError):
            read(task({**chosen("cat"), key: value}))
    for key in ("data", "annotations", "id"):
        with suppress(UserError):
            read({**task(chosen("cat")), key: value})

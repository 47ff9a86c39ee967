from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from kafal_pipeline.annotation.answers import AnswerStore, latest_of
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import CannotWrite


def test_answers_are_read_back_in_order(tmp_path, answer):
    store = AnswerStore(tmp_path)
    given = [answer("s1", "ape", seconds=1.5, comment="blurred, é"), answer("s2"), answer("s3", status="unusable")]
    assert store.add(1, given) == given
    assert store.read(1) == given == store.read_all()
    assert store.read(0) == []


def test_the_same_answers_twice_add_nothing(tmp_path, answer):
    store = AnswerStore(tmp_path)
    store.add(0, [answer("s1", "ape")])
    before = store.path(0).read_bytes()
    assert store.add(0, [answer("s1", "ape"), replace(answer("s1", "ape"), time="2027-01-01T00:00:00.000+00:00")]) == []
    assert store.path(0).read_bytes() == before


def test_an_older_answer_does_not_replace_a_younger_one(tmp_path, answer):
    store = AnswerStore(tmp_path)
    store.add(0, [answer("s1", "ape", time="2026-02-01T00:00:00.000+00:00")])
    assert store.add(0, [answer("s1", "bee", time="2026-01-01T00:00:00.000+00:00")]) == []
    assert len(store.add(0, [answer("s1", "bee", annotator="bob")])) == 1
    assert latest_of(store.read(0))["s1", "ann"].label == "ape"


def test_a_line_that_a_crash_left_torn_is_no_answer_and_goes(tmp_path, answer):
    store = AnswerStore(tmp_path)
    store.add(0, [answer("s1", "ape")])
    whole = store.path(0).read_bytes()
    store.path(0).write_bytes(whole + b'{"sample": "s2", "stat')
    assert [found.sample for found in store.read(0)] == ["s1"]
    store.add(0, [answer("s3", "bee")])
    assert [found.sample for found in store.read(0)] == ["s1", "s3"]


@pytest.mark.parametrize("line", ["{}", "[]", '{"sample": 1', "nonsense"])
def test_a_damaged_line_is_named(tmp_path, answer, line):
    store = AnswerStore(tmp_path)
    store.add(0, [answer("s1", "ape")])
    with store.path(0).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match="client_000.jsonl: line 2 is no answer"):
        store.read(0)


def test_people_at_once_lose_no_answer(tmp_path, answer):
    def work(person):
        for number in range(20):
            AnswerStore(tmp_path).add(0, [answer(f"s{number}", "ape", annotator=person)])

    threads = [threading.Thread(target=work, args=(person,)) for person in ("ann", "bob", "cem")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(latest_of(AnswerStore(tmp_path).read(0))) == 60 == len(AnswerStore(tmp_path).read(0))


def test_a_full_disk_adds_nothing(tmp_path, answer, monkeypatch):
    import os

    store = AnswerStore(tmp_path)
    store.add(0, [answer("s1", "ape")])
    before = store.path(0).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device", str(store.path(0)))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="No space left"):
        store.add(0, [answer("s2", "ape")])
    assert store.path(0).read_bytes() == before

"""The store reads what files have grown by; whatever else happens to them, it finds what is there."""

from __future__ import annotations

import dataclasses
import json
import os
import threading

import pytest

from kafal_pipeline.annotation.answers import Answer, AnswerStore
from kafal_pipeline.common.errors import UserError


def answer(number, label="cat", time="2026-01-01T00:00:00", annotator="Anna"):
    return Answer(f"{number:012x}", "labelled", label, annotator, time, "csv", 0, "q")


def line(of):
    return json.dumps(dataclasses.asdict(of)) + "\n"


@pytest.fixture
def store(tmp_path):
    store = AnswerStore(tmp_path)
    store.add(0, [answer(number) for number in range(5)])
    assert len(store.read(0)) == 5
    return store


def fresh(store):
    return AnswerStore(store.folder).read(0)


def test_what_another_process_adds_is_read_and_known_to_be_there(store):
    other = AnswerStore(store.folder)
    assert other.add(0, [answer(5)]) == [answer(5)]
    assert store.add(0, [answer(5), answer(6)]) == [answer(6)]
    assert store.read(0) == other.read(0) == fresh(store)
    assert store.clients() == [0]


def test_the_same_image_twice_in_one_call_is_compared_with_the_one_before(store):
    later = answer(7, "dog", "2026-01-02T00:00:00")
    assert store.add(0, [answer(7), answer(7), later, later]) == [answer(7), later]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("cat", "dog", 1),  # of the same length
        lambda text: text.replace("cat", "horse", 1),
        lambda text: "".join(text.splitlines(keepends=True)[1:]),
        lambda text: text + line(answer(9)) + line(answer(10)),
        lambda text: text.replace("cat", "mouse") + line(answer(9)),
        lambda text: text + '{"half": "a li',
        lambda text: "",
    ],
)
def test_a_file_that_was_edited_is_read_again(store, change):
    path = store.path(0)
    path.write_text(change(path.read_text()))
    assert store.read(0) == fresh(store)
    store.add(0, [answer(20)])
    assert store.read(0) == fresh(store)
    assert store.read(0)[-1] == answer(20)


def test_a_file_that_was_replaced_or_removed_is_read_again(store):
    path = store.path(0)
    other = path.with_name("other")
    other.write_text(path.read_text().replace("cat", "dog"))
    os.replace(other, path)
    assert {of.label for of in store.read(0)} == {"dog"}
    path.unlink()
    assert store.read(0) == []
    assert store.add(0, [answer(0)]) == [answer(0)]


def test_a_damaged_line_is_named_by_its_number_each_time(store):
    with store.path(0).open("a") as file:
        file.write(line(answer(5)) + "{}\n")
    for _ in range(2):
        with pytest.raises(UserError, match="line 7 is no answer"):
            store.read(0)
    with pytest.raises(UserError, match="line 7 is no answer"):
        store.add(0, [answer(8)])


def test_what_the_check_raises_keeps_the_file_as_it_is(store):
    before = store.path(0).read_bytes()

    def refuse():
        assert store.path(0).with_name(".client_000.jsonl.lock").exists()  # nobody else can add
        raise KeyError("taken")

    with pytest.raises(KeyError):
        store.add(0, [answer(8)], refuse)
    assert store.path(0).read_bytes() == before


def test_threads_that_add_and_read_at_once_see_each_answer_once(tmp_path):
    store = AnswerStore(tmp_path)

    def work(name):
        for number in range(20):
            store.add(0, [answer(number, annotator=name)])
            store.read(0)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("Anna", "Ben", "Cleo")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(store.read(0)) == len(set(store.read(0))) == 60
    assert store.read(0) == fresh(store)

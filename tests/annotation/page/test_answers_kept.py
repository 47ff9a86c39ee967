"""Two people at once neither lose a label nor give one twice."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections import Counter

import pytest
from desks import ask, make_desk, make_images, sample_of

from kafal_pipeline.annotation.answers import AnswerStore
from kafal_pipeline.annotation.page import board
from kafal_pipeline.annotation.page import queue as queue_module
from kafal_pipeline.annotation.page.leases import Leases
from kafal_pipeline.annotation.page.queue import Person, Queue


def saved(page):
    return [(a.annotator, a.sample, a.status, a.label) for a in page.store.read_all()]


def test_an_answer_is_on_disk_before_the_next_image_is_named(opened, monkeypatch):
    page, synced = opened(), []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), real(file))[1])
    anna = page.tab()
    first, second = anna.next()[:2]
    reply = anna.answer(first, "dog", seconds=2.5, comment="  dark ")
    assert reply.status_code == 200
    assert synced
    assert reply.json["queue"][0]["sample"] == second
    (answer,) = AnswerStore(page.store.folder).read(0)
    assert (answer.sample, answer.label, answer.annotator, answer.source) == (first, "dog", "Anna", "page")
    assert (answer.seconds, answer.comment, answer.cycle) == (2.5, "dark", 0)
    assert answer.query == page.queue.board.items[first].request.query


def test_two_people_never_hold_the_same_image(opened):
    page = opened()
    assert set(page.tab("Anna").next()).isdisjoint(page.tab("Ben").next())


def test_neither_do_two_tabs_of_one_person_nor_two_servers_of_one_run(opened):
    page = opened(9)
    other = opened(desk=make_desk(page.desk.folder.parent, page.desk.images))
    held = page.tab("Anna").next() + page.tab("Anna", "second").next() + other.tab("Ben").next()
    assert len(set(held)) == 9


def test_a_page_that_is_gone_gives_its_images_back_after_two_minutes_or_at_once(opened):
    page = opened(3)
    anna, ben, cleo = page.tab("Anna"), page.tab("Ben"), page.tab("Cleo")
    assert len(anna.next()) == 3
    page.clock.now += 100
    anna.next()  # it still shows them
    page.clock.now += 100
    assert ben.next() == []
    page.clock.now += 30
    assert len(ben.next()) == 3
    ben.post("leave")
    assert len(cleo.next()) == 3


def test_the_first_of_two_answers_counts_and_the_other_person_learns_whose_it_was(opened):
    page = opened()
    anna, ben = page.tab("Anna"), page.tab("Ben")
    sample = anna.next()[0]
    page.clock.now += 1000
    assert ben.next()[0] == sample
    assert anna.answer(sample, "dog").status_code == 200  # late, but first: it is not lost
    reply = ben.answer(sample, "cat")
    assert reply.status_code == 409
    assert "Anna" in reply.json["message"]
    assert reply.json["queue"][0]["sample"] != sample
    assert saved(page) == [("Anna", sample, "labelled", "dog")]


@pytest.mark.parametrize("wanted", [1, 2])
def test_many_people_at_two_servers_answer_each_image_as_often_as_is_wanted(opened, wanted):
    page = opened(60, annotators=wanted)
    other = opened(desk=make_desk(page.desk.folder.parent, page.desk.images, annotators=wanted))
    failed: list[object] = []

    def work(tab):
        try:
            while keep := tab.next():
                reply = tab.answer(keep[0], "cat")
                if reply.status_code not in (200, 409):
                    failed.append(reply.json)
        except Exception as error:
            failed.append(error)

    names = ["Anna", "Ben", "Cleo", "Dora"]
    tabs = [server.tab(name) for server, name in zip((page, other, page, other), names, strict=True)]
    threads = [threading.Thread(target=work, args=(tab,)) for tab in tabs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    given = Counter(sample for _, sample, _, _ in saved(page))
    assert given == dict.fromkeys(map(sample_of, range(60)), wanted)
    assert len(set(saved(page))) == 60 * wanted


def test_an_image_stays_with_the_second_person_when_the_first_has_answered(tmp_path):
    ask(tmp_path, range(1))
    queue = Queue(make_desk(tmp_path, make_images(1), annotators=2), None, Leases(tmp_path / "leases.json"))
    anna, ben = Person("Anna", "a"), Person("Ben", "b")
    assert [len(queue.next(person)) for person in (anna, ben)] == [1, 1]
    queue.answer(anna, sample_of(0), "labelled", "cat")  # her page has not asked for the next image yet
    assert [item.asked.sample for item in queue.next(ben, [sample_of(0)])] == [sample_of(0)]


def test_a_check_within_the_store_stops_whoever_comes_second_from_another_process(opened, monkeypatch):
    page = opened()
    anna, ben = page.tab("Anna"), page.tab("Ben")
    sample = anna.next()[0]
    real = AnswerStore.add

    def late(store, client, answers, check):
        monkeypatch.setattr(AnswerStore, "add", real)
        assert ben.answer(sample, "cat").status_code == 200  # between the look and the writing
        return real(store, client, answers, check)

    monkeypatch.setattr(AnswerStore, "add", late)
    assert anna.answer(sample, "dog").status_code == 409
    assert saved(page) == [("Ben", sample, "labelled", "cat")]


def test_two_who_disagree_need_a_third_who_does_not_learn_what_they_said(opened):
    page = opened(4, annotators=2)
    anna, ben, cleo = page.tab("Anna"), page.tab("Ben"), page.tab("Cleo")
    sample = sample_of(0)
    anna.next(), ben.next()
    anna.answer(sample, "cat")
    ben.answer(sample, "dog")
    assert sample not in anna.next() + ben.next()
    for person in (anna, ben):
        for row in (1, 2, 3):
            person.answer(sample_of(row), "horse")
    reply = cleo.post("next")
    assert [item["sample"] for item in reply.json["queue"]] == [sample]
    assert reply.json["queue"][0]["conflict"] is True
    assert "dog" not in json.dumps(reply.json["queue"])
    assert reply.json["progress"] == [{"who": "client 0", "asked": 4, "open": 0, "conflicts": 1, "enough": False}]
    cleo.answer(sample, "dog")
    assert page.desk.verdicts()[sample].label == "dog"
    assert page.tab("Dora").next() == []


def test_conflicts_come_after_what_nobody_has_answered(opened):
    page = opened(5, annotators=2)
    for name, label in (("Anna", "cat"), ("Ben", "dog")):
        page.tab(name).next()
        page.tab(name).answer(sample_of(0), label)
        page.tab(name).post("leave")
    assert page.tab("Cleo").next() == [sample_of(1), sample_of(2), sample_of(3)]


def test_undo_withdraws_the_last_answer_and_shows_its_image_again(opened):
    page = opened()
    anna = page.tab()
    first, second, third = anna.next()
    anna.answer(first, "dog"), anna.answer(second, status="unusable")
    reply = anna.post("undo")
    assert reply.json["undone"] == {"status": "unusable", "label": None, "comment": ""}
    assert anna.keep == [second, third, sample_of(3)]
    assert page.desk.verdicts().get(second) is None
    assert anna.post("undo").json["undone"]["label"] == "dog"
    assert "undone" not in anna.post("undo").json
    assert anna.keep[:2] == [first, second]
    assert [status for _, _, status, _ in saved(page)] == ["labelled", "unusable", "open", "open"]
    anna.answer(first, "dog")
    assert page.desk.verdicts()[first].label == "dog"


def test_earlier_answers_can_be_changed_also_when_others_could_not_answer_any_more(opened):
    page = opened()
    anna, ben = page.tab("Anna"), page.tab("Ben")
    first, second = anna.next()[:2]
    anna.answer(first, "dog", comment="small"), anna.answer(second, status="skipped")
    earlier = anna.post("earlier").json["earlier"]
    assert [(of["sample"], of["answer"]["label"], of["answer"]["comment"]) for of in earlier] == [
        (first, "dog", "small"),
        (second, None, ""),
    ]
    assert ben.post("earlier").json["earlier"] == []
    assert anna.answer(first, "cat").status_code == 200
    assert page.desk.verdicts()[first].label == "cat"


def test_a_clock_that_was_put_back_loses_no_answer(opened, monkeypatch):
    page = opened()
    anna = page.tab()
    sample = anna.next()[0]
    anna.answer(sample, "dog")
    monkeypatch.setattr(queue_module, "now", lambda: "2001-01-01T00:00:00.000+00:00")
    anna.answer(sample, "cat")
    assert page.desk.verdicts()[sample].label == "cat"


def test_a_full_disk_is_told_and_nothing_half_written(opened, monkeypatch):
    page = opened()
    anna = page.tab()
    first, second = anna.next()[:2]
    anna.answer(first, "dog")
    file = page.store.path(0)
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        reply = anna.answer(second, "cat")
    assert reply.status_code == 507
    assert "Make room" in reply.json["message"]
    assert file.read_bytes() == before
    assert anna.answer(second, "cat").status_code == 200
    assert [label for *_, label in saved(page)] == ["dog", "cat"]


def test_the_same_answer_twice_is_saved_once(opened):
    page = opened()
    anna = page.tab()
    sample = anna.next()[0]
    assert anna.answer(sample, "dog").status_code == anna.answer(sample, "dog").status_code == 200
    assert len(saved(page)) == 1


@pytest.mark.parametrize(("sent", "kept"), [(12.5, 12.5), (0, 0), (301, None), (-1, None), (None, None)])
def test_seconds_are_kept_as_long_as_somebody_can_have_looked_all_the_time(opened, sent, kept):
    page = opened()
    anna = page.tab()
    anna.answer(anna.next()[0], "dog", seconds=sent)
    assert page.store.read(0)[0].seconds == kept


def test_new_requests_and_answers_of_other_commands_show_without_a_restart(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(board, "LOOK_AGAIN", 0.0)
    images = make_images(4)
    ask(tmp_path, [0, 1])
    page = opened(desk=make_desk(tmp_path, images))
    anna = page.tab()
    assert anna.next() == [sample_of(0), sample_of(1)]
    ask(tmp_path, [1, 3], cycle=1)
    assert anna.next() == [sample_of(0), sample_of(1), sample_of(3)]
    assert page.queue.board.items[sample_of(1)].request.cycle == 1
    other = opened(desk=make_desk(tmp_path, images)).tab("Ben")
    assert other.answer(sample_of(1), "horse").status_code == 200
    assert anna.next() == [sample_of(0), sample_of(3)]
    page.store.path(0).write_text("")  # somebody takes the lines out
    assert sample_of(1) in anna.next()


def test_progress_is_that_of_the_newest_request_and_earlier_answers_stay_within_reach(opened, tmp_path):
    images = make_images(6)
    ask(tmp_path, [0, 1, 2])
    page = opened(desk=make_desk(tmp_path, images))
    for row in (0, 1):
        page.tab().answer(sample_of(row), "cat")
    ask(tmp_path, [2, 3, 4], cycle=1)
    page = opened(desk=make_desk(tmp_path, images))
    anna = page.tab()
    assert anna.post("next").json["progress"] == [
        {"who": "client 0", "asked": 3, "open": 3, "conflicts": 0, "enough": False}
    ]
    assert anna.answer(sample_of(2)).json["progress"][0]["open"] == 2
    assert len(anna.post("earlier").json["earlier"]) == 3
    anna.post("undo"), anna.post("undo")
    assert anna.keep[0] == sample_of(1)  # of the first cycle
    assert anna.post("next").json["progress"] == [
        {"who": "client 0", "asked": 4, "open": 4, "conflicts": 0, "enough": False}
    ]


def test_an_image_in_reserve_is_asked_for_in_the_place_of_one_that_is_declined(opened, tmp_path):
    ask(tmp_path, range(5), reserve=2)
    page = opened(desk=make_desk(tmp_path, make_images(5)))
    anna, ben = page.tab("Anna"), page.tab("Ben")
    assert anna.next() == [sample_of(row) for row in range(3)]
    assert ben.next() == []
    reply = anna.answer(sample_of(0), status="unusable")
    assert [item["sample"] for item in reply.json["queue"]] == [sample_of(row) for row in (1, 2, 3)]
    assert reply.json["progress"] == [{"who": "client 0", "asked": 4, "open": 3, "conflicts": 0, "enough": False}]
    anna.answer(sample_of(3), "dog")
    anna.answer(sample_of(0), "cat")  # after all: the one in reserve is not needed any more, and its answer stays
    reply = anna.post("next")
    assert reply.json["progress"] == [{"who": "client 0", "asked": 3, "open": 2, "conflicts": 0, "enough": False}]
    assert anna.keep == [sample_of(1), sample_of(2)]
    assert page.desk.verdicts()[sample_of(3)].label == "dog"
    assert [item["sample"] for item in anna.post("earlier").json["earlier"]] == [sample_of(3), sample_of(0)]
    assert page.app.test_client().get(f"/image/{sample_of(3)}?token=secret-token").status_code == 200


def test_the_page_says_when_enough_is_answered_for_the_run_to_resume(opened):
    page = opened(4, complete=0.5)
    anna = page.tab()
    enough = [anna.answer(sample_of(row)).json["progress"][0]["enough"] for row in range(4)]
    assert enough == [False, True, True, True]

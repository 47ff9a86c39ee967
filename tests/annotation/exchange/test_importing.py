"""Files into the store: nothing twice, nothing half, nothing lost."""

from __future__ import annotations

import errno
import os
import resource
import sys
from pathlib import Path

import pytest
from wards import request, sample

from kafal_pipeline.annotation.answers import AnswerStore
from kafal_pipeline.annotation.exchange.importing import import_file
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import CannotWrite

HEADER = "sample,cycle,label,annotator,status\n"


def row(number: int, label: str = "", annotator: str = "", status: str = "") -> str:
    return f"{sample(number)},,{label},{annotator},{status}\n"


@pytest.fixture
def imported(written, requests, store):
    """Return a function that imports a table, saved at a time in seconds."""

    def run(content, at=1_700_000_000, annotator="login", wanted=1, **more):
        path = written(HEADER + content, "t.csv")
        os.utime(path, (at, at))
        return import_file(path, requests, store, annotator, wanted, **more)

    return run


def bytes_of(store: AnswerStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder.glob("*.jsonl")}


BOTH = row(0, "cat") + row(1, "dog") + row(10, "cat") + row(11, "", "", "skipped")


def test_answers_go_to_the_store_of_their_client(imported, store):
    found = imported(BOTH)
    assert (found.added, found.replaced, found.unchanged, found.older) == (4, 0, 0, 0)
    assert [answer.sample for answer in store.read(1)] == [sample(10), sample(11)]
    assert found.missing == 13
    assert found.lines() == ["4 answers from a table: 4 new, 0 there already."]


@pytest.mark.parametrize("later", [0, 1_000])
def test_the_same_file_twice_changes_nothing_and_says_so(imported, store, later):
    imported(BOTH)
    before = bytes_of(store)
    found = imported(BOTH, at=1_700_000_000 + later)
    assert bytes_of(store) == before
    assert (found.added, found.unchanged) == (0, 4)
    assert found.lines()[-1] == "Nothing has changed."


def test_a_table_that_is_not_filled_in_changes_nothing_and_says_so(imported):
    found = imported(row(0) + row(1))
    assert found.lines()[0] == "0 answers from a table: 0 new, 0 there already, 2 images without an answer."
    assert "no answer yet" in found.lines()[1]


def test_an_earlier_file_does_not_undo_what_the_same_person_said_since(imported, store):
    imported(BOTH)
    imported(row(0, "dog"), at=1_700_000_100)
    found = imported(BOTH)
    assert (found.added, found.unchanged, found.older) == (0, 3, 1)
    assert found.verdicts[sample(0)].label == "dog"
    assert "1 changed since by the same person" in found.lines()[0]


def test_a_changed_mind_replaces_and_is_counted(imported):
    imported(BOTH)
    found = imported(BOTH.replace("cat", "dog"), at=1_700_000_100)
    assert (found.added, found.replaced, found.unchanged) == (2, 2, 2)
    assert "2 new (2 replace earlier ones)" in found.lines()[0]


def test_people_who_disagree_are_listed_with_what_they_say(imported):
    found = imported(row(0, "cat", "ann") + row(0, "dog", "ben") + row(1, "cat", "ann") + row(1, "cat", "ben"))
    assert found.verdicts[sample(0)].outcome == "conflict"
    assert found.lines()[1:] == [
        "Conflicts, which wait for one more person or for one to change their mind (1):",
        f"  {sample(0)}: ann says cat, ben says dog",
    ]
    third = imported(row(0, "dog", "cem"))
    assert third.verdicts[sample(0)].label == "dog"
    assert len(third.lines()) == 1


def test_the_second_person_of_two_is_waited_for(imported):
    assert imported(row(0, "cat", "ann"), wanted=2).missing == 17
    assert imported(row(0, "cat", "ben"), wanted=2).missing == 16


def test_an_answer_is_taken_back_only_if_there_was_one(imported, store):
    assert imported(row(0, "", "", "open")).added == 0
    assert not bytes_of(store)
    imported(row(0, "cat"))
    found = imported(row(0, "", "", "open"), at=1_700_000_100)
    assert (found.added, found.missing) == (1, 17)


def test_a_label_that_a_model_was_trained_with_may_change_and_is_named(imported):
    imported(BOTH)
    found = imported(row(0, "dog"), at=1_700_000_100, trained={sample(0): "cat", sample(1): "dog", sample(99): "cat"})
    assert found.retrained == {sample(0): ("cat", "dog")}
    assert f"  {sample(0)}: cat, now dog" in found.lines()


def test_what_one_person_says_twice_in_a_tool_is_left_out_and_named(written, requests, store):
    tags = '<tag label="cat" source="manual"/><tag label="dog" source="manual"/>'
    found = import_file(
        written(f'<annotations><image id="0" name="{sample(0)}.png">{tags}</image></annotations>'), requests, store, "a"
    )
    assert found.lines()[-1] == f"  {sample(0)}: cat and dog"
    assert not bytes_of(store)


def test_a_file_with_one_mistake_leaves_the_store_alone(imported, store):
    with pytest.raises(UserError, match="line 6: unknown class"):
        imported(BOTH + row(2, "catt"))
    assert not bytes_of(store)


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_instant_loses_nothing_and_the_same_command_adds_the_rest(written, requests, tmp_path, step):
    path = written(HEADER + BOTH, "t.csv")
    whole = AnswerStore(tmp_path / "whole")
    import_file(path, requests, whole, "login")
    instant, killed = 0, True
    while killed:
        instant += step  # lines of the program
        store = AnswerStore(tmp_path / f"killed_{instant}")
        child = os.fork()
        if child == 0:
            _die_after(instant)
            import_file(path, requests, store, "login")
            os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        held = {client: store.read(client) for client in (0, 1)}
        assert all(answers in ([], whole.read(client)) for client, answers in held.items())
        import_file(path, requests, store, "login")
        assert bytes_of(store) == bytes_of(whole)
    assert instant > 150


def _die_after(lines: int) -> None:
    left = lines

    def count(frame, event, argument):
        nonlocal left
        if not frame.f_code.co_filename.endswith(("importing.py", "answers.py", "files.py", "locks.py")):
            return None
        left -= 1
        if left < 0:
            os._exit(9)
        return count

    sys.settrace(count)


def test_half_a_line_of_a_crash_is_cut_off(imported, store):
    imported(row(0, "cat"))
    with store.path(0).open("ab") as file:
        file.write(b'{"sample": "s12')
    imported(row(1, "dog"))
    assert [answer.label for answer in store.read(0)] == ["cat", "dog"]


def test_a_full_disk_loses_nothing_and_is_one_message(written, requests, store):
    import_file(written(HEADER + row(0, "cat"), "t.csv"), requests, store, "login")
    before = bytes_of(store)
    path = written(HEADER + row(1, "dog") + row(2, "cat"), "t.csv")
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["client_000.jsonl"]) + 100, resource.RLIM_INFINITY))
        try:
            import_file(path, requests, store, "login")
        except CannotWrite as error:
            os._exit(42 if "cannot be written" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert bytes_of(store) == before
    import_file(path, requests, store, "login")
    assert len(store.read(0)) == 3


def test_a_folder_for_reading_alone_is_one_message(written, requests, store, monkeypatch):
    store.folder.mkdir()

    def open_for_reading(self, mode="r", *arguments, **options):
        if "r" not in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return really(self, mode, *arguments, **options)

    path, really = written(HEADER + row(0, "cat")), Path.open
    monkeypatch.setattr(Path, "open", open_for_reading)
    with pytest.raises(CannotWrite, match="mounted for writing"):
        import_file(path, requests, store, "login")


def test_an_image_asked_for_again_in_a_later_cycle_is_answered_there(written, store):
    first, again = request(0, 0, range(3)), request(1, 0, range(2, 5))
    import_file(written(HEADER + row(2, "cat") + row(0, "dog")), [first, again], store, "a")
    assert {answer.sample: (answer.cycle, answer.query) for answer in store.read(0)} == {
        sample(2): (1, again.query),
        sample(0): (0, first.query),
    }

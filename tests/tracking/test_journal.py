import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.tracking.journal import Journal, read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "journal.jsonl"


def numbers(entries):
    return [entry.event["number"] for entry in entries]


def test_events_come_back_in_their_order_with_their_time(path):
    journal = Journal(path)
    journal.append("metrics", number=1)
    journal.append("metrics", number=2, durable=True)
    first, second = (entry.event for entry in read(path))
    assert (first["number"], second["number"]) == (1, 2)
    assert first["type"] == "metrics"
    assert 0 < first["time"] <= second["time"]


def test_reading_resumes_where_it_stopped(path):
    journal = Journal(path)
    journal.append("a", number=1)
    offset = read(path)[-1].end
    journal.append("b", number=2)
    assert numbers(read(path, offset)) == [2]
    assert read(path, read(path)[-1].end) == []


def test_a_torn_last_line_is_no_event_and_is_cut_off_on_reopening(path):
    Journal(path).append("a", number=1)
    with path.open("ab") as file:
        file.write(b'{"type": "b", "num')
    assert numbers(read(path)) == [1]
    Journal(path).append("c", number=3)
    assert numbers(read(path)) == [1, 3]


@settings(deadline=None, max_examples=30)
@given(cut=st.integers(min_value=0), values=st.lists(st.text(), max_size=4))
def test_a_crash_at_any_byte_loses_only_the_torn_line(tmp_path_factory, cut, values):
    path = tmp_path_factory.mktemp("crash") / "journal.jsonl"
    journal = Journal(path)
    for value in values:
        journal.append("a", number=value)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole))])
    Journal(path).append("b", number="after")
    *before, last = numbers(read(path))
    assert before == values[: len(before)]
    assert last == "after"
    assert len(before) >= whole[: min(cut, len(whole))].count(b"\n")


def test_a_line_that_is_no_event_is_an_error_that_names_the_file(path):
    Journal(path)
    path.write_text("[1]\n")
    with pytest.raises(UserError, match="journal.jsonl.*not an event"):
        read(path)


def test_an_absent_journal_has_no_events(path):
    assert read(path) == []


def test_threads_do_not_tear_each_others_lines(path):
    journal = Journal(path)

    def write(thread):
        for number in range(50):
            journal.append("a", number=[thread, number])

    threads = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers(read(path))) == [[thread, number] for thread in range(4) for number in range(50)]


def test_not_a_number_is_refused_since_json_has_none(path):
    with pytest.raises(ValueError, match="JSON"):
        Journal(path).append("metrics", values={"loss": float("nan")})
    assert json.loads(path.read_bytes() or b"[]") == []

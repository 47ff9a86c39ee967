"""Whatever is in a file, it is read as meant or refused."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wards import CLASSES, sample

from kafal_pipeline.annotation.exchange import spreadsheet
from kafal_pipeline.annotation.exchange.read import answers_in
from kafal_pipeline.common.errors import UserError

HERE = Path(__file__).parent
SAME_FOLDER = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])

SAID = st.one_of(
    st.tuples(st.sampled_from(CLASSES), st.sampled_from(["", "labelled"])),
    st.tuples(st.just(""), st.sampled_from(["", "skipped", "unusable", "unknown_class"])),
)
NAMES = st.text(st.characters(codec="cp1252", categories=["L", "Nd", "P"]), min_size=1, max_size=8).map(
    lambda name: f"a{name}z"
)
COMMENTS = st.text(st.characters(codec="cp1252", exclude_categories=["C"]), max_size=10) | st.just('two\nlines "q"; ,')


@SAME_FOLDER
@given(
    said=st.lists(st.tuples(SAID, NAMES, COMMENTS), min_size=6, max_size=6),
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    shuffled=st.randoms(use_true_random=False),
    padding=st.sampled_from(["", " ", "\u00a0"]),
)
def test_a_table_that_somebody_fills_in_is_read_back_in_any_dialect(
    tmp_path, requests, said, delimiter, encoding, line_end, quoting, shuffled: random.Random, padding
):
    path = tmp_path / "t.csv"
    files = [f"images/{item.sample}.png" for item in requests[0].samples]
    spreadsheet.write(requests[0], requests[0].samples, files, path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    expected = {}
    for row, ((label, status), who, comment) in zip(rows, said, strict=True):
        row[4:] = [padding + label + padding, who, status, comment]
        if label or status:
            expected[row[0]] = (label or None, status or "labelled", who, comment.strip())
    shuffled.shuffle(rows)
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows([header, *rows])
    path.write_bytes(text.getvalue().encode(encoding))
    found = answers_in(path, requests, "nobody").by_client[0]
    assert {a.sample: (a.label, a.status, a.annotator, a.comment) for a in found} == expected


def read_or_refused(path: Path, content: bytes, requests) -> None:
    path.write_bytes(content)
    with suppress(UserError):
        answers_in(path, requests, "nobody")


GOOD = {
    "csv": f"sample,cycle,label,annotator,status\n{sample(0)},0,cat,ann,\n{sample(1)},0,,ann,skipped\n".encode(),
    "utf16": f"sample\tcycle\tlabel\tannotator\tstatus\n{sample(0)}\t0\tcat\tann\t\n".encode("utf-16"),
    "json": (HERE / "label_studio_export.json").read_bytes()[:3000] + b"]}]",
    "xml": (HERE / "cvat_annotations.xml").read_bytes().replace(b"FIRST", f"{sample(0)}.png".encode()),
}


@SAME_FOLDER
@given(content=st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path, requests, content):
    read_or_refused(tmp_path / "x", content, requests)


@pytest.mark.parametrize("kind", GOOD)
@SAME_FOLDER
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path, requests, kind, data):
    content = bytearray(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["change", "cut", "insert", "double"]))
        if how == "change":
            content[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del content[place : place + data.draw(st.integers(1, 50))]
        elif how == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            content[place:place] = content[place : place + 40]
        content = content or bytearray(b"x")
    read_or_refused(tmp_path / "x", bytes(content), requests)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "annotations",
                    "result",
                    "value",
                    "choices",
                    "completed_by",
                    "id",
                    "sample",
                    "from_name",
                    "run",
                ]
                + ["was_cancelled", "updated_at", "lead_time", "query", "cycle"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=15,
)


@SAME_FOLDER
@given(tasks=st.lists(st.fixed_dictionaries({"data": JSON, "annotations": JSON | st.lists(JSON)}), max_size=3))
def test_json_of_any_shape_is_read_or_refused(tmp_path, requests, tasks):
    read_or_refused(tmp_path / "x", json.dumps(tasks).encode(), requests)


@pytest.mark.parametrize("kind", GOOD)
def test_every_beginning_of_a_file_is_read_or_refused(tmp_path, requests, kind):
    for end in range(0, len(GOOD[kind]), 7):
        read_or_refused(tmp_path / "x", GOOD[kind][:end], requests)


@pytest.mark.parametrize("seconds", [2**33, -(2**31)])
def test_a_file_whose_time_is_beyond_reason_is_read(tmp_path, requests, seconds):
    path = tmp_path / "x"
    path.write_bytes(GOOD["csv"])
    os.utime(path, (seconds, seconds))
    assert "1970" <= answers_in(path, requests, "nobody").by_client[0][0].time < "2222"

"""Tables as spreadsheets save them."""

from __future__ import annotations

import os

import pytest
from wards import RUN, request, sample, write_manifest

from kafal_pipeline.annotation.exchange.read import answers_in
from kafal_pipeline.common.errors import UserError

HEADER = "sample,file,cycle,rank,label,annotator,status,comment\n"


def row(
    number: int, label: str = "", annotator: str = "", status: str = "", comment: str = "", cycle: int | str = 0
) -> str:
    return f"{sample(number)},images/{sample(number)}.png,{cycle},{number},{label},{annotator},{status},{comment}\n"


@pytest.fixture
def read(written, requests):
    """Return a function that reads a file with a content, and returns what each image is said to be."""

    def run(content, **more):
        found = answers_in(written(content, "t.csv"), requests, "login", **more)
        return {
            answer.sample: (answer.label or answer.status, answer.annotator)
            for answers in found.by_client.values()
            for answer in answers
        }

    return run


@pytest.fixture
def refused(read):
    def run(content, **more):
        with pytest.raises(UserError) as error:
            read(content, **more)
        return str(error.value)

    return run


FILLED = HEADER + row(0, "cat", "ann") + row(1, "dog") + row(2, status="skipped") + row(10, "", "ben", "unusable")
SAID = {
    sample(0): ("cat", "ann"),
    sample(1): ("dog", "login"),
    sample(2): ("skipped", "login"),
    sample(10): ("unusable", "ben"),
}


@pytest.mark.parametrize(
    "content",
    [
        FILLED.encode(),
        b"\xef\xbb\xbf" + FILLED.encode(),
        FILLED.replace("\n", "\r\n").encode(),
        FILLED.replace("\n", "\r").encode(),  # an old Mac's
        FILLED.replace(",", ";").encode("cp1252"),
        ("sep=;\r\n" + FILLED.replace(",", ";")).encode(),
        FILLED.replace(",", "\t").encode("utf-16"),
        b"\xfe\xff" + FILLED.replace(",", "\t").encode("utf-16-be"),
        "\n".join('"' + line.replace(",", '";"') + '"' for line in FILLED.splitlines()).encode(),
        (FILLED + ",,,,,,,\n" + "\n").encode(),  # rows that were emptied
        FILLED.rstrip("\n").encode(),  # Google's tables end so
        FILLED.replace("cat", " cat ").replace(sample(1), f" {sample(1)}\u00a0").encode(),
        FILLED.replace("sample,", " Sample ,").encode(),
        FILLED.replace("dog", "DOG").encode(),
        FILLED.replace("unusable", "Unusable ").encode(),
        FILLED.replace(",0,", ",0.0,").encode(),  # whole numbers that pandas took for floats
        "".join([HEADER, *reversed(FILLED.splitlines(keepends=True)[1:])]).encode(),
    ],
)
def test_a_table_survives_spreadsheets(read, content):
    assert read(content) == SAID


def test_quoted_cells_hold_separators_and_lines(read, written, requests):
    content = HEADER.replace(",", ";") + f'"{sample(0)}";"a;b";"0";"0";"cat";"ann";"";"two\nlines; ""quoted"""\n'
    assert read(content) == {sample(0): ("cat", "ann")}
    (answer,) = answers_in(written(content), requests, "x").by_client[0]
    assert answer.comment == 'two\nlines; "quoted"'


def test_rows_that_are_not_filled_in_say_nothing(written, requests):
    found = answers_in(written(HEADER + row(0) + row(1, annotator="ann") + row(2, "cat")), requests, "ann")
    assert (found.empty, len(found.by_client[0])) == (2, 1)


def test_cells_that_excel_leaves_out_at_the_end_of_a_row_are_empty(read):
    assert read(HEADER + f"{sample(0)},f,0,0,cat\n{sample(1)},f,0\n" + row(2, "dog")) == {
        sample(0): ("cat", "login"),
        sample(2): ("dog", "login"),
    }


def test_answers_carry_what_they_answer_and_when_the_file_was_saved(written, requests):
    path = written(HEADER + row(20, "cat", cycle=1) + row(0, "dog"))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    first, second = answers_in(path, requests, "ann").by_client[0]
    assert (first.cycle, first.query, first.source) == (1, requests[2].query, "csv")
    assert (second.cycle, second.query) == (0, requests[0].query)
    assert first.time == "2023-11-14T22:13:20.000+00:00"
    assert first.seconds is None


def test_answers_are_of_the_client_that_was_asked(written, requests):
    found = answers_in(written(FILLED), requests, "ann")
    assert {client: len(answers) for client, answers in found.by_client.items()} == {0: 3, 1: 1}


def test_a_label_column_may_decline_an_image_unless_a_class_is_called_so(read):
    assert read(HEADER + row(0, "Unknown class")) == {sample(0): ("unknown_class", "login")}


def test_classes_that_differ_in_capitals_alone_are_not_guessed(written):
    from dataclasses import replace

    asked = replace(request(0, 0, range(2)), classes=("cat", "Cat"))
    (answer,) = answers_in(written(HEADER + row(0, "Cat")), [asked], "a").by_client[0]
    assert answer.label == "Cat"
    with pytest.raises(UserError, match="unknown class 'CAT'"):
        answers_in(written(HEADER + row(0, "CAT")), [asked], "a")


def test_two_people_may_say_different_things_in_one_file(written, requests):
    found = answers_in(written(HEADER + row(0, "cat", "ann") + row(0, "dog", "ben")), requests, "x")
    assert [(answer.annotator, answer.label) for answer in found.by_client[0]] == [("ann", "cat"), ("ben", "dog")]


def test_an_answer_may_be_taken_back(written, requests):
    (answer,) = answers_in(written(HEADER + row(0, "", "ann", "open")), requests, "x").by_client[0]
    assert answer.status == "open"


def test_one_person_who_says_two_things_is_named_with_both_lines(refused):
    message = refused(HEADER + row(0, "cat", "ann") + row(1, "cat") + row(0, "dog", "ann"))
    assert "line 2 and line 4: ann says two things" in message


def test_the_same_row_twice_is_one_answer(read):
    assert read(HEADER + row(0, "cat") * 2) == {sample(0): ("cat", "login")}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (row(1, "catt"), "unknown class 'catt'. Did you mean 'cat'? Allowed: "),
        (row(1, "cat", status="skipped"), "the label 'cat' has the status 'skipped'"),
        (row(1, status="labelled"), "the status is labelled, but there is no label"),
        (row(1, status="skiped"), "unknown status 'skiped'. Did you mean 'skipped'?"),
        (row(1, "cat", cycle=1), "was asked for in cycle 0, not '1'"),
        (row(15, "cat"), "unknown image"),
        (f"{sample(1)[:-1]},,0,,cat,,,\n", f"Is it {sample(1)}?"),
        ("1.23E+11,,0,,cat,,,\n", "'1.23E+11' is no id of an image"),
        (row(1, "cat", "a" * 101), "is no name"),
        (row(1, "cat", '"a\x1bb"'), "is no name"),
        (row(1, "cat", comment="a,b"), "the row has 9 cells, where the header has 8"),
    ],
)
def test_mistakes_are_said_with_their_line(refused, line, said):
    message = refused(HEADER + row(0, "dog") + line)
    assert "line 3: " in message
    assert said in message
    assert "nothing was imported" in message


def test_ids_survive_excel(requests):
    # Excel takes 123456789012 and 1234e5678901 for numbers; nothing that begins with an s.
    assert all(item.sample[0] == "s" for asked in requests for item in asked.all)


def test_all_mistakes_are_in_one_message_and_the_same_one_is_said_once(refused):
    wrong = "".join(row(number, "catt") for number in range(6)) + row(10, "dgo")
    message = refused(HEADER + wrong)
    assert "line 2, line 3, line 4 and 3 more: unknown class 'catt'" in message
    assert "line 8: unknown class 'dgo'" in message


def test_a_message_names_ten_mistakes(refused):
    message = refused(HEADER + "".join(row(number, "cat") for number in range(50, 75)))
    assert len(message.splitlines()) == 13
    assert "and 15 more" in message


def test_a_file_of_another_run_names_it(refused, tmp_path):
    other = request(0, 0, range(50, 53), run="wards/random-fedavg/seed_7")
    write_manifest(tmp_path / "annotation", other)
    message = refused(HEADER + row(50, "cat") + row(51, "dog"), elsewhere=tmp_path / "annotation")
    assert f"line 2, line 3: it answers the run wards/random-fedavg/seed_7, not {RUN}." in message


def test_a_damaged_request_of_another_run_does_not_matter(refused, tmp_path):
    place = write_manifest(tmp_path / "annotation", request(0, 0, range(50, 53), run="wards/random-fedavg/seed_7"))
    (place / "manifest.json").write_text("{")
    assert "unknown image" in refused(HEADER + row(50, "cat"), elsewhere=tmp_path / "annotation")


@pytest.mark.parametrize("name", ["sample", "cycle", "label", "annotator", "status"])
def test_a_column_that_is_missing_or_there_twice_is_named(refused, name):
    rest = [column for column in HEADER.strip().split(",") if column != name]
    assert name in refused(",".join([*rest, "x"]) + "\n" + row(0, "cat"))
    if name != "sample":
        assert f"column '{name}' is missing" in refused(",".join(rest) + "\n")
    assert f"column '{name}' is there twice" in refused(HEADER.strip() + f",{name}\n")


def test_columns_may_be_moved_added_and_dropped_where_nobody_reads_them(read):
    content = f"label,mine,status,annotator,cycle,sample\ncat,1,,ann,0,{sample(0)}\n"
    assert read(content) == {sample(0): ("cat", "ann")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (FILLED[:-20], "the file ends in the middle of this row"),
        (FILLED.rstrip() + '"ab', "it ends between quotes"),
        (HEADER.replace(",", "\t").encode("utf-16")[:-1], "cut off"),
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b"\xff\xfe", "is empty"),
        (b"a,b\0c", "is no text"),
        (b"\x81\x8d", "is no text"),
        ("Sample ids,label\n", "not recognised"),
        ("hello\n", "not recognised"),
        ('"sample,file,cycle,rank,label,annotator,status,comment";;\n', "each row stands in one cell"),
        (b"PK\x03\x04 xl/workbook.xml", "is an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "is an Excel workbook"),
        (b"PK\x03\x04 annotations.xml", "is an archive"),
        ("annotation_id,lead_time,sample,label,cycle,annotator,status\n", "Label Studio's CSV"),
        (HEADER + "x" * 200_000 + "\n", "field larger"),
    ],
)
def test_what_is_no_table_of_ours_is_refused_with_what_to_do(refused, content, said):
    assert said in refused(content)


def test_a_file_that_is_not_there_and_a_folder_are_named(requests, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        answers_in(tmp_path / "x.csv", requests, "a")
    with pytest.raises(UserError, match="is a folder"):
        answers_in(tmp_path, requests, "a")


def test_a_file_that_is_far_too_large_is_not_read(requests, tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(200_000_001)
    with pytest.raises(UserError, match="200 MB"):
        answers_in(path, requests, "a")

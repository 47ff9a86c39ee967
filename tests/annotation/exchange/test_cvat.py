"""CVAT's XML; `cvat_annotations.xml` follows https://docs.cvat.ai/docs/other/xml_format, version 1.1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from wards import CLASSES, RUN, name, request, sample, write_manifest

from kafal_pipeline.annotation.exchange.read import answers_in
from kafal_pipeline.common.errors import UserError

EXPORT = Path(__file__).with_name("cvat_annotations.xml").read_text(encoding="utf-8")
PLACES = ("FIRST", "SECOND", "THIRD", "FOURTH", "FIFTH")


def image(of: str, *labels: str, source: str = "manual") -> str:
    tags = "".join(f'<tag label="{label}" source="{source}"></tag>' for label in labels)
    return f'<image id="0" name="{of}" width="8" height="8">{tags}</image>'


def export(*images: str, meta: str = "") -> str:
    return f"<annotations><version>1.1</version><meta>{meta}</meta>{''.join(images)}</annotations>"


@pytest.fixture
def read(written, requests):
    def run(content, asked=None):
        return answers_in(written(content), asked or requests, "login")

    return run


@pytest.mark.parametrize("folder", ["", "images/", "share/wards/cycle_00/images/"])
def test_an_export_is_read_by_the_names_of_images_not_by_their_numbers(read, folder):
    text = EXPORT
    for place, number in zip(PLACES, (3, 1, 0, 2, 4), strict=True):
        text = text.replace(f'"{place}"', f'"{folder}{sample(number)}.png"')
    found = read(text)
    assert found.source == "cvat"
    assert [(answer.sample, answer.label or answer.status) for answer in found.by_client[0]] == [
        (sample(3), "cat"),
        (sample(1), CLASSES[2]),
        (sample(0), "unusable"),
    ]
    assert found.disputed == {sample(4): "cat and dog"}
    assert {(answer.annotator, answer.time) for answer in found.by_client[0]} == {
        ("ann", "2026-11-24T09:30:00.250+00:00")
    }


def test_other_encodings_are_read(read):
    text = EXPORT.replace("FIRST", f"{sample(0)}.png").replace("utf-8", "utf-16")
    text = text.partition('<image id="1"')[0] + "</annotations>"
    assert read(text.encode("utf-16")).by_client[0][0].label == "cat"


def test_an_image_without_a_tag_is_open_and_may_be_another(read):
    found = read(export(image("someone_elses.png"), image(f"{sample(0)}.png"), image(f"{sample(1)}.png", "dog")))
    assert [answer.sample for answer in found.by_client[0]] == [sample(1)]


def test_the_same_tag_twice_is_one_answer(read):
    assert read(export(image(f"{sample(0)}.png", "dog", "dog"))).by_client[0][0].label == "dog"


def test_a_tag_that_a_model_made_is_no_answer(read):
    assert not read(export(image(f"{sample(0)}.png", "dog", source="auto"))).by_client


def test_a_class_may_be_called_unusable(read):
    asked = replace(request(0, 0, range(3)), classes=("usable", "unusable"))
    assert read(export(image(f"{sample(0)}.png", "unusable")), [asked]).by_client[0][0].status == "labelled"


def test_shapes_and_attributes_are_passed_over(read):
    box = '<box label="dog" xtl="0" ytl="0" xbr="1" ybr="1"><attribute name="a">b</attribute></box>'
    tagged = image(f"{sample(0)}.png", "cat").replace("</image>", box + "</image>")
    assert read(export(tagged)).by_client[0][0].label == "cat"


@pytest.mark.parametrize("kind", ["job", "project"])
def test_exports_of_jobs_and_projects_say_who_and_when(read, kind):
    meta = (
        f"<{kind}><updated>2026-01-02 03:04:05+00:00</updated><assignee><username>ben</username></assignee>"
        f"<tasks><task><updated>2020-01-01</updated></task></tasks></{kind}>"
    )
    (answer,) = read(export(image(f"{sample(0)}.png", "cat"), meta=meta)).by_client[0]
    assert (answer.annotator, answer.time) == ("ben", "2026-01-02T03:04:05.000+00:00")


@pytest.mark.parametrize(("prefix", "number"), [("", 1), ("my wards/", 1)])
def test_original_names_are_found_from_any_folder(read, prefix, number):
    of = (prefix + name(number)).replace("&", "&amp;")
    assert read(export(image(of, "cat"))).by_client[0][0].sample == sample(number)
    assert read(export(image(of.rpartition("/")[2], "cat"))).by_client[0][0].sample == sample(number)


def test_an_original_name_of_several_images_is_refused(read):
    asked = request(0, 0, range(2))
    first, second = (replace(item, file=f"{place}/x.png") for item, place in zip(asked.samples, "ab", strict=True))
    twins = [replace(asked, samples=(first, second))]
    with pytest.raises(UserError, match="'x.png' is the name of several images"):
        read(export(image("x.png", "cat")), twins)
    assert read(export(image("b/x.png", "cat")), twins).by_client[0][0].sample == second.sample


def test_an_unknown_image_or_class_is_named(read):
    text = export(image("other.png", "cat"), image(f"{sample(0)}.png", "catt"), image(f"{sample(77)}.png", "cat"))
    with pytest.raises(UserError) as error:
        read(text)
    assert "image 'other.png': 'other.png' is no id of an image" in str(error.value)
    assert "unknown class 'catt'. Did you mean 'cat'?" in str(error.value)
    assert f"unknown image '{sample(77)}.png': this run has not asked for it" in str(error.value)


def test_a_file_of_another_run_names_it(written, requests, tmp_path):
    write_manifest(tmp_path / "annotation", request(0, 0, range(50, 53), run="wards/random-fedavg/seed_7"))
    with pytest.raises(UserError, match=f"answers the run wards/random-fedavg/seed_7, not {RUN}"):
        answers_in(written(export(image(f"{sample(50)}.png", "cat"))), requests, "a", tmp_path / "annotation")


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (EXPORT[:-100], "no whole XML file"),
        (BOMB + export(image("&c;", "cat")), "document type"),
        ((BOMB + export()).encode("utf-16"), "document type"),
        ('<!DOCTYPE annotations SYSTEM "file:///etc/passwd"><annotations/>', "document type"),
        ("<html></html>", "begins with <html>"),
        ("<annotations><track></track></annotations>", "CVAT for images 1.1"),
        ("<annotations>&nothing;</annotations>", "no whole XML file"),
    ],
)
def test_what_is_no_export_is_refused(read, content, said):
    with pytest.raises(UserError, match=said):
        read(content)


def test_a_deep_file_does_not_crash(read):
    depth = 100_000
    assert not read("<annotations>" + "<a>" * depth + "</a>" * depth + "</annotations>").by_client

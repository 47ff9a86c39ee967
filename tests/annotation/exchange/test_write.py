from __future__ import annotations

import csv
import json
import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image
from wards import CLASSES, RUN, name, sample

from kafal_pipeline.annotation.desk import Desk
from kafal_pipeline.annotation.exchange.write import export
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import AnnotationConfig


@pytest.fixture
def exported(tmp_path, requests, images, dataset):
    """Return a function that exports the first request, and returns its folder."""

    def run(file_names="opaque", source=dataset, place=None, data=images):
        folder = tmp_path / "request"
        folder.mkdir()
        export(requests[0], requests[0].samples, folder, data, source, file_names, place)
        return folder

    return run


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "to_label.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_has_a_row_for_each_image_by_rank_and_nothing_filled_in(exported):
    folder = exported()
    assert (folder / "to_label.csv").read_bytes().startswith(b"\xef\xbb\xbf")  # or Excel takes it for a code page
    rows = rows_of(folder)
    assert list(rows[0]) == ["sample", "file", "cycle", "rank", "label", "annotator", "status", "comment"]
    assert [row["sample"] for row in rows] == [sample(number) for number in range(6)]
    assert [row["rank"] for row in rows] == list("012345")
    assert {row[key] for row in rows for key in ("label", "annotator", "status", "comment")} == {""}
    assert all((folder / row["file"]).is_file() for row in rows)


def test_no_name_of_the_data_set_is_in_what_is_handed_out(tmp_path, requests, images, dataset):
    desk = Desk(RUN, tmp_path / "requests", tmp_path / "labels", images, AnnotationConfig(source="people"), dataset)
    desk.ask(requests[:1])
    written = [path for path in (tmp_path / "requests").rglob("*") if path.is_file()]
    assert len([path for path in written if path.parent.name == "images"]) == 6
    assert not any("ller" in path.name for path in written)
    texts = [path.read_bytes() for path in written if path.suffix in {".csv", ".json", ".xml", ".txt"}]
    assert len(texts) == 6  # the manifest is one of them
    assert not any(word in text for text in texts for word in (b"ller", b"Anna", b"unlabelled", b"my wards"))


def test_the_manifest_of_original_names_has_them_so_that_cvats_names_are_found(tmp_path, requests, images, dataset):
    config = AnnotationConfig(source="people", file_names="original")
    desk = Desk(RUN, tmp_path / "requests", tmp_path / "labels", images, config, dataset)
    desk.ask(requests)
    assert desk.requests() == requests


def test_images_are_linked_not_copied_and_never_by_a_symbolic_link(exported, dataset):
    folder = exported()
    path = folder / "images" / f"{sample(0)}.jpg"  # .JPG in the data set
    assert os.path.samefile(path, dataset / name(0))
    assert not path.is_symlink()


def test_a_symbolic_link_of_the_data_set_is_followed(exported, dataset):
    elsewhere = dataset.parent / "Anna.png"
    (dataset / name(1)).rename(elsewhere)
    (dataset / name(1)).symlink_to(elsewhere)
    path = exported() / "images" / f"{sample(1)}.png"
    assert path.is_file()
    assert not path.is_symlink()


def test_images_are_copied_where_links_cannot_be_made(exported, dataset, monkeypatch):
    def across_file_systems(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across_file_systems)
    path = exported() / "images" / f"{sample(1)}.png"
    assert path.read_bytes() == (dataset / name(1)).read_bytes()
    assert not os.path.samefile(path, dataset / name(1))


def test_an_image_that_has_gone_is_named(exported, dataset):
    (dataset / name(4)).unlink()
    with pytest.raises(UserError, match=r"#4\.png: has gone"):
        exported()


def test_original_names_refer_to_the_data_set_and_copy_nothing(exported):
    folder = exported("original")
    assert not (folder / "images").exists()
    assert [row["file"] for row in rows_of(folder)] == [name(number) for number in range(6)]
    assert (folder / "cvat_images.txt").read_text(encoding="utf-8").splitlines() == [name(n) for n in range(6)]
    tasks = json.loads((folder / "label_studio_tasks.json").read_text())
    served = parse_qs(urlsplit(tasks[0]["data"]["image"]).query)["d"]
    assert served == [f"my wards/{name(0)}"]  # `&` and `#` survive the address


@pytest.mark.parametrize("file_names", ["opaque", "original"])
def test_images_that_are_no_files_are_written_as_png_large_enough_to_be_seen(exported, images, file_names):
    path = exported(file_names, source=None) / "images" / f"{sample(2)}.png"
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (256, 256, 3)
    assert np.array_equal(pixels[::32, ::32], images.train_images[2])


def test_test_images_come_from_the_test_set_and_grey_ones_stay_grey(exported, images):
    grey = replace(
        images, train_images=np.zeros((40, 8, 8, 1), np.uint8), test_images=np.full((40, 8, 8, 1), 9, np.uint8)
    )
    folder = exported(source=None, data=grey) / "images"
    first, third = (Image.open(folder / f"{sample(number)}.png") for number in (0, 2))
    assert (first.mode, third.mode) == ("L", "L")
    assert (first.getpixel((0, 0)), third.getpixel((0, 0))) == (9, 0)  # of the first request two are test images


def test_channels_that_nobody_can_see_are_refused(exported, images):
    odd = replace(images, train_images=np.zeros((40, 8, 8, 5), np.uint8), test_images=np.zeros((40, 8, 8, 5), np.uint8))
    with pytest.raises(UserError, match="5 channels"):
        exported(source=None, data=odd)


def test_tasks_of_label_studio_carry_the_request_and_no_key_that_it_uses_itself(exported, requests):
    tasks = json.loads((exported() / "label_studio_tasks.json").read_text())
    assert [task["data"]["rank"] for task in tasks] == list(range(6))
    assert tasks[0]["data"] == {
        "image": f"/data/local-files/?d={RUN}/cycle_00/client_000/images/{sample(0)}.jpg",
        "sample": sample(0),
        "run": RUN,
        "cycle": 0,
        "client": 0,
        "query": requests[0].query,
        "rank": 0,
    }


def test_the_address_of_an_image_says_where_the_folder_will_be(exported):
    tasks = json.loads(
        (exported(place="wards/a-b/seed_0/cycle_00/client_000/refill_002") / "label_studio_tasks.json").read_text()
    )
    assert "/client_000/refill_002/images/" in tasks[0]["data"]["image"]


def test_the_labelling_configuration_has_all_classes_whatever_their_names(exported):
    view = ET.parse(exported() / "label_studio_config.xml").getroot()
    image, labels, status = view
    assert (image.get("value"), image.get("zoom")) == ("$image", "true")
    assert [choice.get("value") for choice in labels] == list(CLASSES)
    assert [choice.get("hotkey") for choice in labels] == ["1", "2", "3"]
    assert labels.get("choice") == status.get("choice") == "single"
    assert [choice.get("value") for choice in status] == ["unusable", "unknown class"]
    assert labels.get("name") != status.get("name")  # so that a class may be called unusable


def test_cvat_gets_names_by_rank_and_its_labels(exported):
    folder = exported()
    names = (folder / "cvat_images.txt").read_text().splitlines()
    assert [Path(name).stem for name in names] == [sample(number) for number in range(6)]
    labels = json.loads((folder / "cvat_labels.json").read_text(encoding="utf-8"))
    assert [label["name"] for label in labels] == [*CLASSES, "unusable", "unknown_class"]
    assert {label["type"] for label in labels} == {"tag"}

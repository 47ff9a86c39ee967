"""CVAT: the names of images in the order asked and the labels for it, and its XML, ``CVAT for images 1.1``, back."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET  # nosec B405: what could be harmful, a document type, is refused below
from collections.abc import Mapping, Sequence
from pathlib import Path

from kafal_pipeline.annotation.exchange.entries import Entry, as_time
from kafal_pipeline.common.errors import UserError

IMAGES = "cvat_images.txt"
LABELS = "cvat_labels.json"

DECLINING = ("unusable", "unknown_class")

BY_MODEL = "auto"
"""The source of a tag that a model made and nobody has touched: no answer of a person."""


def write_images(files: Sequence[str], path: Path) -> None:
    """Write the names of the images, in the order asked."""
    path.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")


def write_labels(classes: Sequence[str], path: Path) -> None:
    """Write what CVAT's field ``Raw`` takes: the classes as tags, then those that decline an image."""
    names = [*classes, *(name for name in DECLINING if name not in classes)]
    labels = [{"name": name, "type": "tag", "attributes": []} for name in names]
    path.write_text(json.dumps(labels, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path, text: str) -> list[Entry]:
    """Return what an export says of the images that have a tag.

    CVAT writes neither who gave a tag nor when: whom the task is assigned to and when it was last changed, if it says.
    Raises `UserError` if it is no whole XML file, has a document type, or is another export.
    """
    found = _Reader(path)
    parser = ET.XMLParser(target=found)  # nosec B314
    try:
        parser.feed(text)
        parser.close()
    except ET.ParseError as error:
        raise UserError(
            f"{path}: no whole XML file ({error}). Was it cut off? Export it again; nothing was imported."
        ) from None
    entries = []
    for name, tags in found.images:
        said = tuple(dict.fromkeys(tags))
        if said:
            entries.append(Entry(f"image {name!r}", name, said, "", found.assignee, found.time))
    return entries


class _Reader:
    """Takes from the events of a parser what is needed; nothing grows with the depth of the file."""

    def __init__(self, path: Path) -> None:
        self.images: list[tuple[str, list[str]]] = []
        self._path = path
        self._open: list[str] = []
        self._text: list[str] = []
        self._meta: dict[str, str] = {}

    @property
    def assignee(self) -> str:
        return self._meta.get("assignee/username", "")

    @property
    def time(self) -> str:
        return as_time(self._meta.get("updated") or self._meta.get("dumped") or "")

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise UserError(f"{self._path}: XML with a document type (<!DOCTYPE>), which CVAT does not write: refused.")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if not self._open and tag != "annotations":
            raise UserError(f"{self._path}: XML, but not CVAT's (it begins with <{tag[:50]}>, not <annotations>).")
        if tag == "track":
            raise UserError(f"{self._path}: CVAT's export for video. Export as 'CVAT for images 1.1'.")
        self._open.append(tag)
        self._text = []
        if self._open == ["annotations", "image"]:
            self.images.append((attributes.get("name", "").strip(), []))
        elif self._open == ["annotations", "image", "tag"] and attributes.get("source") != BY_MODEL:
            self.images[-1][1].append(attributes.get("label", "").strip())

    def data(self, text: str) -> None:
        if self._open[:2] == ["annotations", "meta"]:
            self._text.append(text)

    def end(self, tag: str) -> None:
        if self._open[:2] == ["annotations", "meta"]:
            # meta/dumped; or, of a task, a job or a project, meta/task/updated and meta/task/assignee/username
            for name in {"/".join(self._open[2:]), "/".join(self._open[3:])} & {
                "dumped",
                "updated",
                "assignee/username",
            }:
                self._meta[name] = "".join(self._text).strip()
        self._text = []
        self._open.pop()

    def close(self) -> None:
        pass

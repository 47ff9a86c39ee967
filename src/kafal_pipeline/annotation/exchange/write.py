"""Writes a request as files for other tools."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from kafal_pipeline.annotation.requests import Asked, Request
from kafal_pipeline.data.images import ImageData


def export(
    request: Request,
    samples: Sequence[Asked],
    folder: Path,
    images: ImageData,
    source: Path | None,
    file_names: Literal["opaque", "original"],
) -> None:
    """Write `samples` of a request into `folder`."""
    with (folder / "to_label.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", "file", "cycle", "rank", "label", "annotator", "status", "comment"])
        writer.writerows([item.sample, item.file or "", request.cycle, item.rank, "", "", "", ""] for item in samples)

"""Makes a federation to try: scikit-learn's digits in the folders of three sites, with all files that they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import write_text
from kafal_pipeline.common.randomness import Purpose, numpy_generator
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources.digits import source

NAMES = ("east", "north", "west")

SITE = """\
name: {name}
images: images          # train/<class>/ and test/<class>/
work: work              # what the site keeps; remove it to begin afresh
classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
device: cpu
threads: 1              # one: the same bits as a simulation
min_count: 1            # of real patients: 5 or more
allow:
  classes: []           # Python classes outside the package that the server may name
"""


def write_demo(folder: Path) -> list[Path]:
    """Write a folder for each site, and ``together``: all images as one data set, to simulate the same federation.

    Sites have much of some classes and little of others, as hospitals do. Returns the paths of the files `site.yml`.

    Raises
    ------
    UserError
        If the folder is not empty.
    """
    from PIL import Image

    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty. Name a folder that is not there yet.")
    data = source(DatasetConfig(), folder).read()
    tables: dict[str, list[str]] = {"train": [], "test": []}
    for split, rows in tables.items():
        images, labels = np.asarray(getattr(data, f"{split}_images")[:]), getattr(data, f"{split}_labels")
        owners = _owners(labels)
        for row, (pixels, label, owner) in enumerate(zip(images, labels, owners, strict=True)):
            key = f"{data.classes[label]}/{row:04d}.png"
            rows.append(f"{key},{NAMES[owner]}")
            for place in (folder / NAMES[owner] / "images", folder / "together"):
                path = place / split / key
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[..., 0]).save(path)
    for split, rows in tables.items():
        write_text(folder / "together" / f"{split}_clients.csv", "\n".join(["file,client", *rows]) + "\n")
    paths = [folder / name / "site.yml" for name in NAMES]
    for name, path in zip(NAMES, paths, strict=True):
        write_text(path, SITE.format(name=name))
    return paths


def _owners(labels: np.ndarray) -> np.ndarray:
    """Give each image to a site: three in five of a class to the site that has much of it, the others to the rest."""
    rng = numpy_generator(0, Purpose.PARTITION)
    chances = np.full((10, len(NAMES)), 0.2)
    chances[np.arange(10), np.arange(10) % len(NAMES)] = 0.6
    return np.array([rng.choice(len(NAMES), p=chances[label]) for label in labels])

"""Make a data set for the tutorial in docs/annotate.md: scikit-learn's digits as PNG files, nearly all unlabelled.

    python examples/digit_files.py data/01_raw/tutorial

Writes 300 images of three classes, held by two hospitals, 20 of them labelled:

    train/<class>/*.png      the labelled ones
    unlabelled/<hospital>/*.png
    train_clients.csv        which hospital holds each image
    answers.csv              the classes of the unlabelled ones, for those who would rather not label by hand

Nothing reads answers.csv: a run asks people.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

CLASSES = {3: "three", 5: "five", 8: "eight"}
HOSPITALS = ("north", "south")
IMAGES, LABELLED, SIDE = 300, 20, 96
SKEW = {3: 0.75, 5: 0.5, 8: 0.25}  # share of each class that the first hospital holds


def main(folder: Path) -> None:
    """Write the data set into a folder, which must not be there."""
    if folder.exists():
        sys.exit(f"{folder}: is there already. Name another folder, or remove it.")
    digits, rng = load_digits(), np.random.default_rng(0)
    chosen = rng.permutation(np.flatnonzero(np.isin(digits.target, list(CLASSES))))[:IMAGES]
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    clients, answers = [], []
    for number, sample in enumerate(chosen):
        digit = int(digits.target[sample])
        hospital = HOSPITALS[int(rng.random() >= SKEW[digit])]
        name = f"{hospital}_{number:03d}.png"
        key = f"{CLASSES[digit]}/{name}" if number < LABELLED else f"unlabelled/{hospital}/{name}"
        path = temporary / "train" / key if number < LABELLED else temporary / key
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.round(255 - digits.images[sample] * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
        clients.append((key, hospital))
        if number >= LABELLED:
            answers.append((key, CLASSES[digit]))
    for name, header, rows in (
        ("train_clients.csv", ("file", "client"), clients),
        ("answers.csv", ("file", "label"), answers),
    ):
        with (temporary / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
    temporary.rename(folder)
    print(f"{IMAGES} images, {LABELLED} of them labelled, in {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))

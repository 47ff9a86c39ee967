"""Data sets to be spoiled, read by the function that does or by what a user types."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from kedro.framework.startup import bootstrap_project
from PIL import Image

from kafal_pipeline.settings import current_run

from .spoiled import archive_in, read_by_command, read_directly


@pytest.fixture(scope="module")
def earlier(tmp_path_factory, copy_of_project):
    """A project with a result of an earlier run in it."""
    folder = copy_of_project(tmp_path_factory.mktemp("earlier") / "project")
    bootstrap_project(folder)
    result = folder / "data/07_model_output/mine/ksas-kcfu/seed_0/cycle_00/metrics.json"
    result.parent.mkdir(parents=True)
    result.write_text('{"accuracy": 0.5}')
    yield folder
    current_run._config = None


@pytest.fixture(params=["function", pytest.param("command", marks=pytest.mark.slow)])
def reading(request, tmp_path):
    """A function that reads the data set of a name and path, or raises a UserError."""
    if request.param == "function":
        return functools.partial(read_directly, tmp_path)
    return functools.partial(read_by_command, request.getfixturevalue("earlier"))


@pytest.fixture
def archive(tmp_path, reading):
    """A function that writes the archive of arrays, some of them others, and one that reads it through its store."""
    return archive_in(tmp_path, reading)


@pytest.fixture
def photos(tmp_path, reading):
    root = tmp_path / "photos"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")

    return root, functools.partial(reading, "photos", root)

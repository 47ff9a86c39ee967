"""Where the code looks for a run's files is where the catalog has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node

from kafal_pipeline.lifecycle.runner import ResumableSequentialRunner
from kafal_pipeline.runs.layout import FIRST_NODE, parsed
from kafal_pipeline.settings import CONFIG_LOADER_ARGS, current_run

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def catalog():
    return OmegaConfigLoader(str(CONF), **CONFIG_LOADER_ARGS)["catalog"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("images", lambda run: run.images),
        ("splits", lambda run: run.splits),
        ("split_table", lambda run: run.split_table),
        ("split_origin", lambda run: run.split_origin),
        ("{cycle}.pool", lambda run: run.pools / "{cycle}/pool.parquet"),
        ("{cycle}.queried", lambda run: run.outputs / "{cycle}/queried.parquet"),
        ("{cycle}.metrics", lambda run: run.metrics(0)),
        ("{cycle}.global_model", lambda run: run.global_model(0)),
        ("summary", lambda run: run.report / "summary.json"),
    ],
)
def test_the_catalog_and_the_code_agree(catalog, name, found):
    expected = found(current_run.layout.from_root).as_posix().replace("cycle_00", "{cycle}")
    assert catalog[name]["filepath"] == expected


@pytest.mark.parametrize("name", ["data.load", "report.draw", "cycle_1x.train", "cycle_.train", "cycle_01"])
def test_what_belongs_to_no_cycle(name):
    assert parsed(name) == (None, name)


def test_the_runner_works_without_the_project_s_hooks():
    place, _, name = FIRST_NODE.partition(".")
    pipeline = Pipeline([node(lambda: 1, None, f"{place}.pool", name=name, namespace=place)])
    catalog = DataCatalog({f"{place}.pool": MemoryDataset()})
    ResumableSequentialRunner().run(pipeline, catalog)
    assert catalog.load(f"{place}.pool") == 1

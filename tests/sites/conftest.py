from __future__ import annotations

import pytest

from kafal_pipeline.config import resolve
from kafal_pipeline.sites.at_site.service import SiteService
from kafal_pipeline.sites.at_site.site_file import read_site
from kafal_pipeline.sites.demo import write_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The demo's folder, in which no test may change an image."""
    folder = tmp_path_factory.mktemp("demo") / "federation"
    write_demo(folder)
    return folder


@pytest.fixture
def make_config(demo):
    def make(**changes):
        values = {
            "seed": 3,
            "cycles": 2,
            "dataset": {"name": "together", "path": str(demo / "together")},
            "partition": {"method": "natural", "clients": 3},
            "budget": {"initial": 20, "per_cycle": 10},
            "model": {"name": "cnn4", "width": 8},
            "federation": {"rounds": 2, "participation": 0.67},
            "training": {"local_epochs": 1, "processes": 1, "device": "cpu"},
        }
        for key, value in changes.items():
            values[key] = {**values[key], **value} if isinstance(values.get(key), dict) else value
        return resolve(values)

    return make


@pytest.fixture
def services(demo, tmp_path):
    """The three sites, which keep what they keep in a folder of the test."""
    sites = [read_site(path) for path in sorted(demo.glob("*/site.yml"))]
    return [SiteService(site.model_copy(update={"work": str(tmp_path / site.name)})) for site in sites]

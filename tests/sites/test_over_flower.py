"""Flower's own messages: same bits, nothing but what is listed, and answers that cannot be used."""

from __future__ import annotations

import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

from flower_grid import LocalGrid
from over_sites import assert_same, over_sites, simulated

from kafal_pipeline.sites.over_flower.carrier import OverFlower

STRATEGIES = [("ksas", "kcfu"), ("fairfal", "scaffold"), ("logo", "fedavg")]


@pytest.mark.parametrize(("query", "update"), STRATEGIES)
def test_the_bits_of_a_simulation(query, update, make_config, services, tmp_path):
    config = make_config(query=query, update=update)
    found = over_sites(config, OverFlower(LocalGrid(services), 5))
    assert_same(found, simulated(config, tmp_path / "simulated"))

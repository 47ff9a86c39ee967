"""A trial over sites has the bits of a simulation with the same seed and split."""

from __future__ import annotations

import pytest
from over_sites import assert_same, over_sites, simulated

from kafal_pipeline.sites.in_process import InProcess

STRATEGIES = [("ksas", "kcfu"), ("fairfal", "scaffold"), ("logo", "fedavg")]


@pytest.mark.parametrize(("query", "update"), STRATEGIES)
def test_the_bits_of_a_simulation(query, update, make_config, services, tmp_path):
    config = make_config(query=query, update=update)
    assert_same(over_sites(config, InProcess(services)), simulated(config, tmp_path / "simulated"))


def test_the_bits_of_a_simulation_whose_first_labels_are_chosen_by_their_pixels(make_config, services, tmp_path):
    config = make_config(query="uherding", update="fedavg", budget={"initial_query": "herding"})
    assert_same(over_sites(config, InProcess(services)), simulated(config, tmp_path / "simulated"))

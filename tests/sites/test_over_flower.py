"""Flower's own messages: same bits, nothing but what is listed, and answers that cannot be used."""

from __future__ import annotations

import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

from flower_grid import LocalGrid
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from over_sites import assert_same, over_sites, simulated

from kafal_pipeline.sites.at_server.members import gather
from kafal_pipeline.sites.over_flower import carrier
from kafal_pipeline.sites.over_flower.carrier import OverFlower

STRATEGIES = [("ksas", "kcfu"), ("fairfal", "scaffold"), ("logo", "fedavg")]


@pytest.mark.parametrize(("query", "update"), STRATEGIES)
def test_the_bits_of_a_simulation(query, update, make_config, services, tmp_path):
    config = make_config(query=query, update=update)
    found = over_sites(config, OverFlower(LocalGrid(services), 5))
    assert_same(found, simulated(config, tmp_path / "simulated"))


@pytest.mark.parametrize(("times", "patience"), [(2, 60), (1, 0)])
def test_a_site_whose_connection_has_gone_is_asked_again(times, patience, make_config, services, monkeypatch):
    monkeypatch.setattr(carrier, "COMES_BACK", patience)
    left = {"north": times}

    def gone(name, reply):
        if left.get(name, 0) == 0:
            return reply
        left[name] -= 1
        failed = Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=reply)
        failed.metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
        return failed

    assert gather(OverFlower(LocalGrid(services, gone), 30), make_config()).names == ("east", "north", "west")
    assert left["north"] == 0

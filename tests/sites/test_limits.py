"""A message that is larger than a side takes is refused before it is read as a whole."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

from flower_grid import LocalGrid
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_objects

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.sites.over_flower.carrier import OverFlower
from kafal_pipeline.sites.over_flower.limits import EXTRA, Limited, limit_of_answer
from kafal_pipeline.sites.over_flower.wire import to_packet, to_records
from kafal_pipeline.sites.packets import Missing, Packet

PIECE = 1000


class Pieces:
    """A client with messages of so many pieces each, which counts those that were pulled."""

    def __init__(self, **messages):
        self.messages, self.pulled = messages, 0

    def PullMessages(self, request):
        trees = [
            ObjectTree(object_id=name, children=[ObjectTree(object_id=f"{name}{n}") for n in range(count)])
            for name, count in self.messages.items()
        ]
        return SimpleNamespace(messages_list=[None] * len(trees), message_object_trees=trees)

    def PullObject(self, request):
        self.pulled += 1
        return SimpleNamespace(object_content=bytes(PIECE))


def pull(client, name, count):
    def piece(part):
        return client.PullObject(SimpleNamespace(object_id=part)).object_content

    return pull_objects([f"{name}{n}" for n in range(count)], piece, max_concurrent_pulls=1)


def test_pulling_ends_soon_after_the_limit_and_other_messages_are_not_touched():
    pieces = Pieces(small=3, huge=500)
    client = Limited(pieces, 5 * PIECE)
    client.PullMessages(None)
    with pytest.raises(ObjectPullError, match="larger than 5,000 bytes"):
        pull(client, "huge", 500)
    assert client.refused and pieces.pulled < 20
    assert len(pull(client, "small", 3)) == 3


def test_a_message_may_be_as_large_as_the_limit():
    client = Limited(Pieces(whole=5), 5 * PIECE)
    client.PullMessages(None)
    assert len(pull(client, "whole", 5)) == 5 and not client.refused


def test_bytes_are_not_unpacked_beyond_the_limit():
    records = to_records(Packet({}, {"model": {"weight": np.zeros(1000)}}))
    assert to_packet(records, 20_000).arrays["model"]["weight"].shape == (1000,)
    with pytest.raises(NotAllowed, match=r"has 8,\d\d\d bytes, more than the 8,000"):
        to_packet(records, 8000)


def test_an_answer_may_be_some_times_its_request_and_a_constant():
    assert limit_of_answer(Packet({}, {"model": {"weight": np.zeros(1000, dtype=np.uint8)}})) == 8000 + EXTRA


def test_the_server_takes_a_huge_answer_for_missing(services):
    class Huge:
        def __init__(self, service):
            self.site, self._service = service.site, service

        def answer(self, kind, request):
            return Packet({"name": "east"}, {"levels": {"counts": np.zeros(EXTRA // 8 + 1)}})

    found = dict(OverFlower(LocalGrid([Huge(services[0])]), 5).ask("join", {"east": Packet()}, "joining"))
    assert isinstance(found["east"], Missing) and "more than the 64,000,000 that are taken" in found["east"].why


def test_a_site_refuses_a_huge_message(services):
    services[0].site = services[0].site.model_copy(update={"message_limit": 0.001})
    request = Packet({"run": "trial"}, {"model": {"weight": np.zeros(1000)}})
    found = dict(OverFlower(LocalGrid(services), 5).ask("evaluate", {"east": request}, "evaluation"))
    assert "more than the 1,000 that are taken" in found["east"].why

"""Packets as Flower's records."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.sites.over_flower.wire import kind_of, to_packet, to_records, type_of
from kafal_pipeline.sites.packets import Packet

LIMIT = 1_000_000

ARRAYS = {
    "z": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array(7),
    "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "flags": np.array([True, False]),
    "none": np.empty((0, 4), dtype=np.int64),
}


def test_a_packet_comes_back_as_it_was_in_its_order():
    values = {"text": "é", "whole": 3, "number": float("inf"), "texts": [], "numbers": [0.5]}
    found = to_packet(to_records(Packet(values, {"model": ARRAYS, "message": {}})), LIMIT)
    assert dict(found.values) == values
    assert list(found.arrays) == ["model", "message"] and not found.arrays["message"]
    assert list(found.arrays["model"]) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays["model"][name], array, strict=True)


@pytest.mark.parametrize("kind", ["train", "evaluate", "select"])
def test_flowers_type_of_a_message_is_that_of_its_kind(kind):
    assert kind_of(type_of(kind)) == kind


@pytest.mark.parametrize(
    "records",
    [
        {},
        {"values": ArrayRecord()},
        {"values": ConfigRecord(), "model": ConfigRecord()},
        {"values": ConfigRecord(), "model": ArrayRecord({"other": Array(np.zeros(3))})},
        {"values": ConfigRecord(), "model": ArrayRecord({"safetensors": Array(np.zeros(3, dtype=np.uint8))})},
        {
            "values": ConfigRecord(),
            "model": ArrayRecord({"safetensors": Array("uint8", (3,), "numpy.ndarray", b"abc")}),
        },
        {"values": ConfigRecord(), "model": ArrayRecord({"safetensors": Array("uint8", (3,), "pickle", b"abc")})},
    ],
)
def test_other_records_are_refused(records):
    with pytest.raises(NotAllowed):
        to_packet(RecordDict(records), LIMIT)

"""What leaves a site: exactly what is listed, and nothing that belongs to one image."""

from __future__ import annotations

import numpy as np
import pytest
from over_sites import over_sites

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.federation.between_rounds.client_states import from_record
from kafal_pipeline.sites.in_process import InProcess
from kafal_pipeline.sites.listed import MESSAGES, check
from kafal_pipeline.sites.packets import Packet


class Recording(InProcess):
    """Keeps every packet."""

    def __init__(self, services):
        super().__init__(services)
        self.packets = []

    def ask(self, kind, requests, place):
        self.packets += [(kind, "request", request) for request in requests.values()]
        for name, answer in super().ask(kind, requests, place):
            self.packets.append((kind, "answer", answer))
            yield name, answer


def fields(packet):
    names = [*packet.values, *packet.arrays]
    return {"summary_*" if name.startswith("summary_") else name for name in names}


def all_bytes(packet):
    texts = "\0".join(map(str, packet.values.values())).encode()
    return texts + b"".join(
        name.encode() + array.tobytes() for arrays in packet.arrays.values() for name, array in arrays.items()
    )


@pytest.mark.parametrize(("query", "update"), [("fairfal", "scaffold"), ("ksas", "kcfu")])
def test_every_field_of_whole_trials_is_listed_and_every_listed_one_is_sent(query, update, make_config, services):
    carrier = Recording(services)
    over_sites(make_config(query=query, update=update), carrier)
    sent = {}
    for kind, direction, packet in carrier.packets:
        sent.setdefault((kind, direction), set()).update(fields(packet))
    two_phases = {"summary"} if query == "fairfal" else set()
    assert {kind for kind, _ in sent} == (MESSAGES.keys() - {"summary"}) | two_phases
    for (kind, direction), names in sent.items():
        listed = set(getattr(MESSAGES[kind], direction))
        assert names <= listed, (kind, direction)
        assert listed - names <= {"summary_*"}, (kind, direction)


def test_no_answer_holds_an_image_a_sample_a_label_a_file_or_momentum(make_config, services):
    carrier = Recording(services)
    over_sites(make_config(query="fairfal", update="scaffold"), carrier)
    answers = [all_bytes(packet) for _, direction, packet in carrier.packets if direction == "answer"]
    secrets = []
    for service in services:
        work = service._open[1]
        images, store = work.images, work.kept.store
        secrets += [b".png", service.site.images.encode(), service.site.work.encode()]
        secrets += [image.tobytes() for image in images.train_images[:50] if image.any()]
        choice = store["choice_00001"]
        secrets += [choice["samples"].tobytes(), np.sort(choice["samples"]).tobytes(), choice["scores"].tobytes()]
        pool = work.kept.pool(1)
        secrets += [pool.labelled.tobytes(), pool.labels.tobytes(), images.train_labels.tobytes()]
        secrets += [images.train_labels[choice["samples"]].tobytes()]
        for key in store:
            if key.startswith("state_"):
                momentum = from_record(store[key]).momentum
                secrets += [array.tobytes() for array in momentum.values() if array.size > 8]
    for secret in secrets:
        assert len(secret) > 3
        assert not any(secret in answer for answer in answers)
    # The look finds what is there: the local models are in the answers, and kept at the sites.
    model = max(services[0]._open[1].kept.store["model_00001"].values(), key=lambda array: array.size)
    assert any(model.tobytes() in answer for answer in answers)


def test_counts_below_the_sites_least_number_are_withheld(make_config, services):
    strict = [service for service in services]
    for service in strict:
        service.site = service.site.model_copy(update={"min_count": 4})
    carrier = Recording(strict)
    over_sites(make_config(query="fairfal"), carrier)
    counts = [
        array
        for kind, direction, packet in carrier.packets
        if direction == "answer" and kind in ("annotate", "summary", "evaluate")
        for arrays in packet.arrays.values()
        for name, array in arrays.items()
        if name in ("counts", "label_counts") and array.ndim == 1
    ]
    assert len(counts) == 9
    assert not any(((found > 0) & (found < 4)).any() for found in counts)
    summaries = [packet for kind, way, packet in carrier.packets if (kind, way) == ("summary", "answer")]
    for packet in summaries:
        arrays = packet.arrays["summary"]
        rare = arrays["label_counts"] == 0
        assert rare.any() and not arrays["prototype_sums"][rare].any()


@pytest.mark.parametrize(
    ("kind", "packet", "said"),
    [
        ("images", Packet(), "'images' is not listed"),
        ("annotate", Packet({"run": "a", "cycle": 0, "pool": 1}), "has the field 'pool'"),
        ("annotate", Packet({"run": "a"}), "lacks the field 'cycle'"),
        ("annotate", Packet({"run": "a", "cycle": "0"}), "allowed: whole"),
        ("annotate", Packet({"run": "a"}, {"cycle": {}}), "has the field 'cycle'"),
    ],
)
def test_what_is_not_listed_is_refused(kind, packet, said):
    with pytest.raises(NotAllowed, match=said):
        check(kind, "request", packet)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kafal_pipeline.common.registry import create
from kafal_pipeline.query import QUERIES
from kafal_pipeline.query.base import summarises
from kafal_pipeline.query.pool import Head, Outputs, PoolView

KINDS = ("global", "local", "downloaded", "local_only", "finetuned", "distilled")
WIDTH = 6


@pytest.fixture
def make_pool():
    """A function that makes a pool whose models' outputs are random numbers, a function of the sample alone."""

    def make(
        samples=20, classes=4, seed=0, label_classes=(0, 1), order=None, outputs=None, labelled=9, client=0, watch=True
    ):
        rng = np.random.default_rng(seed)
        ids = np.sort(rng.choice(1000, size=samples, replace=False))
        features = {kind: torch.tensor(rng.normal(size=(1000, WIDTH))) for kind in KINDS}
        heads = {kind: Head(torch.tensor(rng.normal(size=(classes, WIDTH))), torch.zeros(classes)) for kind in KINDS}
        known = np.setdiff1d(np.arange(1000), ids)[:labelled]

        def forward(kind, wanted):
            if outputs:
                return outputs(kind, wanted)
            mine = features[kind][torch.as_tensor(wanted)]
            return Outputs(mine @ heads[kind].weight.T, mine)

        labels = rng.choice(label_classes, size=len(known))
        changes = {"samples": ids[::2], "changes": rng.integers(0, 9, len(ids[::2]))} if watch else {}
        given = ids
        if order is not None:  # of the pool; that of the labelled samples is turned round
            given, known, labels = ids[order], known[::-1], labels[::-1]
        return PoolView(client, given, known, labels, classes, forward, heads.__getitem__, watched=changes)

    return make


OPTIONS = {"compose": {"score": "margin", "quota": "global_prototypes", "diversity": "k_centre"}}
"""What a query cannot do without."""


def make_query(name, **options):
    return create("query", name, {**OPTIONS.get(name, {}), **options}, QUERIES)


def informed(query, pool, others=()):
    """Return the pool as it is in the second phase, all clients having sent their summaries."""
    if not summarises(query):
        return pool
    everybody = {item.client: query.summary(item) for item in (pool, *others)}
    return replace(pool, summaries=everybody)

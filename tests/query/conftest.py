from __future__ import annotations

import numpy as np
import pytest
import torch

from kafal_pipeline.query.base import Outputs, PoolView


@pytest.fixture
def make_pool():
    """A function that makes a pool whose models' outputs are random numbers, a function of the sample alone."""

    def make(samples=20, classes=4, seed=0, label_classes=(0, 1), order=None, outputs=None):
        rng = np.random.default_rng(seed)
        ids = np.sort(rng.choice(1000, size=samples, replace=False))
        tables = {
            kind: torch.tensor(rng.normal(size=(1000, classes + 6))) for kind in ("global", "local", "downloaded")
        }
        labelled = np.setdiff1d(np.arange(1000), ids)[:9]

        def forward(kind, wanted):
            table = tables[kind][torch.as_tensor(wanted)]
            return outputs(kind, wanted) if outputs else Outputs(table[:, :classes], table[:, classes:])

        labels = rng.choice(label_classes, size=len(labelled))
        return PoolView(0, ids if order is None else ids[order], labelled, labels, classes, forward)

    return make

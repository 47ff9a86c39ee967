from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kafal_pipeline.query.entropy import Entropy


@pytest.mark.parametrize("model", ["global", "local"])
def test_chooses_the_largest_entropy_in_nats(make_pool, model):
    pool = make_pool(samples=30, classes=5, seed=2)
    expected = stats.entropy(pool.logits(model).softmax(1).numpy(), axis=1)
    chosen = Entropy(model=model).select(pool, 7, np.random.default_rng(0))
    assert chosen.samples.tolist() == pool.samples[np.argsort(-expected)[:7]].tolist()
    assert chosen.scores.tolist() == pytest.approx(sorted(expected, reverse=True)[:7])

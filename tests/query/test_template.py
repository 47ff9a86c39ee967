"""What every query must do, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kafal_pipeline.query import QUERIES
from kafal_pipeline.query.base import Outputs, largest
from kafal_pipeline.registry import create

pytestmark = pytest.mark.parametrize("name", sorted(QUERIES))


def select(name, pool, budget, seed=0):
    return create("query", name, {}, QUERIES).select(pool, budget, np.random.default_rng(seed))


@pytest.mark.parametrize(("size", "budget"), [(20, 5), (20, 20), (3, 8), (1, 1), (1, 4)])
def test_returns_exactly_the_budget_of_distinct_own_samples(name, make_pool, size, budget):
    pool = make_pool(samples=size)
    chosen = select(name, pool, budget)
    assert len(chosen.samples) == len(set(chosen.samples.tolist())) == len(chosen.scores) == min(size, budget)
    assert set(chosen.samples.tolist()) <= set(pool.samples.tolist())
    assert np.isfinite(chosen.scores).all()


def test_same_seed_same_choice(name, make_pool):
    first, second = (select(name, make_pool(), 7) for _ in range(2))
    assert first.samples.tolist() == second.samples.tolist()


def test_one_class_clients_get_a_random_choice_where_scores_tie(name, make_pool):
    pool = make_pool(samples=40, label_classes=(2,))
    choices = {tuple(select(name, pool, 5, seed).samples.tolist()) for seed in range(4)}
    if name.startswith("ksas") or name == "random":
        assert len(choices) == 4  # every score is 0, so that the seed decides
    else:
        assert len(choices) == 1


def test_extreme_logits_and_equal_samples_are_finite(name, make_pool):
    for scale in (0.0, 1e4):

        def outputs(kind, wanted, scale=scale):
            logits = torch.zeros(len(wanted), 4)
            logits[:, 1 if kind == "local" else 2] = scale
            return Outputs(logits, torch.zeros(len(wanted), 6))

        pool = make_pool(outputs=outputs)
        chosen = select(name, pool, 5)
        assert np.isfinite(chosen.scores).all()
        assert len(set(chosen.samples.tolist())) == 5


def test_scores_come_best_first(name, make_pool):
    scores = select(name, make_pool(), 12).scores
    assert (np.diff(scores) <= 0).all()


def test_not_a_number_is_refused_rather_than_sorted(name):
    with pytest.raises(ValueError, match="1 of 2 scores"):
        largest(np.array([1, 2]), np.array([0.0, np.nan]), 1, np.random.default_rng(0))

"""What every query must do, whatever it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafal_pipeline.query import QUERIES
from kafal_pipeline.query.base import largest
from kafal_pipeline.query.compose import DIVERSITIES
from kafal_pipeline.query.pool import Outputs

from .conftest import KINDS, informed, make_query

every_query = pytest.mark.parametrize("name", sorted(QUERIES))


def select(name, pool, budget, seed=0, others=()):
    query = make_query(name)
    return query.select(informed(query, pool, others), budget, np.random.default_rng(seed))


def check(chosen, pool, budget):
    expected = min(len(pool.samples), budget)
    assert len(chosen.samples) == len(set(chosen.samples.tolist())) == len(chosen.scores) == expected
    assert set(chosen.samples.tolist()) <= set(pool.samples.tolist())
    assert np.isfinite(chosen.scores).all()
    assert (np.diff(chosen.scores) <= 0).all()
    assert (chosen.samples.dtype, chosen.scores.dtype) == (np.int64, np.float64)


@every_query
@pytest.mark.parametrize(("size", "budget"), [(20, 5), (20, 20), (3, 8), (1, 1), (1, 4), (20, 1)])
def test_returns_exactly_the_budget_of_distinct_own_samples_best_first(name, make_pool, size, budget):
    pool = make_pool(samples=size)
    check(select(name, pool, budget), pool, budget)


@every_query
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 40),
    budget=st.integers(1, 45),
    seed=st.integers(0, 99),
    labelled=st.integers(0, 12),
    label_classes=st.sets(st.integers(0, 3), min_size=1),
)
def test_does_so_for_every_shape_of_a_client(name, make_pool, size, budget, seed, labelled, label_classes):
    pool = make_pool(samples=size, seed=seed, labelled=labelled, label_classes=sorted(label_classes))
    check(select(name, pool, budget, seed), pool, budget)


@every_query
def test_same_seed_same_choice(name, make_pool):
    first, second = (select(name, make_pool(), 7) for _ in range(2))
    assert first.samples.tolist() == second.samples.tolist()
    assert first.scores.tolist() == second.scores.tolist()


@every_query
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_order_of_the_pool_does_not_matter(name, make_pool, seed):
    order = np.random.default_rng(seed).permutation(20)
    plain, shuffled = (select(name, make_pool(order=given), 7) for given in (None, order))
    assert plain.samples.tolist() == shuffled.samples.tolist()
    assert plain.scores.tolist() == pytest.approx(shuffled.scores.tolist(), rel=1e-9)


@every_query
@pytest.mark.parametrize("scale", [0.0, 1e4, 1e30])
def test_extreme_outputs_beside_ordinary_ones_are_finite(name, make_pool, scale):
    """Every other sample's are that much larger; in single precision, as networks give them."""
    plain = make_pool()

    def outputs(kind, wanted):
        factor = torch.where(torch.as_tensor(wanted) % 2 == 0, scale, 1.0).unsqueeze(1)
        return Outputs(*((factor * part).float() for part in plain.forward(kind, wanted)))

    pool = make_pool(outputs=outputs, watch=False)
    assert 0 < (pool.samples % 2).sum() < 20
    for budget in (1, 5, 20):
        check(select(name, pool, budget), pool, budget)


@every_query
@pytest.mark.parametrize("scale", [0.0, 1e30])
def test_of_equal_samples_the_seed_decides_for_each_as_often(name, make_pool, scale):
    def outputs(kind, wanted):
        logits = torch.zeros(len(wanted), 4)
        logits[:, 1 if kind == "local" else 2] = scale
        return Outputs(logits, torch.zeros(len(wanted), 6))

    pool = make_pool(outputs=outputs, watch=False)
    choices = [select(name, pool, 5, seed) for seed in range(30)]
    for choice in choices:
        check(choice, pool, 5)
        assert name == "random" or len(set(choice.scores.tolist())) == 1
    times = [sum(sample in choice.samples for choice in choices) for sample in pool.samples]
    assert min(times) > 0
    assert max(times) < 20  # of 30, at 7.5 on average


@every_query
def test_the_labels_of_other_samples_are_never_asked_for(name, make_pool):
    """Another client in the federation changes what is known of the whole, never which samples can be chosen."""
    pool, other = make_pool(), make_pool(seed=5, client=1, label_classes=(2, 3))
    check(select(name, pool, 5, others=[other]), pool, 5)


@every_query
def test_summaries_hold_neither_samples_nor_anything_of_their_number(name, make_pool):
    query = make_query(name)
    summary = getattr(query, "summary", None)
    if summary is None:
        return
    few, many = (dict(summary(make_pool(samples=size, labelled=size, seed=1))) for size in (7, 300))
    assert {key: array.shape for key, array in few.items()} == {key: array.shape for key, array in many.items()}


MODEL_OPTIONS = [
    *((name, "model", {}) for name in sorted(QUERIES) if hasattr(make_query(name), "model")),
    *(("compose", "space_model", {"score": "random", "quota": "none", "diversity": part}) for part in DIVERSITIES),
]


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize(("name", "option", "others"), MODEL_OPTIONS)
def test_a_model_decides_as_the_default_would_if_it_said_the_same(name, option, others, model, make_pool):
    pool = make_pool(samples=30)
    default = getattr(make_query(name), option)

    def choices(chosen, speaks_for):
        asked = set()

        def speaker(kind):
            asked.add(speaks_for.get(kind, kind))
            return speaks_for.get(kind, kind)

        view = replace(
            pool,
            forward=lambda kind, wanted: pool.forward(speaker(kind), wanted),
            head_of=lambda kind: pool.head_of(speaker(kind)),
        )
        query = make_query(name, **others, **{option: chosen})
        made = [query.select(view, budget, np.random.default_rng(0)) for budget in (1, 6, 13)]
        return [(choice.samples.tolist(), choice.scores.tolist()) for choice in made], asked

    assert choices(model, {}) == choices(default, {default: model})


def test_not_a_number_is_refused_rather_than_sorted():
    with pytest.raises(ValueError, match="1 of 2 scores"):
        largest(np.array([1, 2]), np.array([0.0, np.nan]), 1, np.random.default_rng(0))

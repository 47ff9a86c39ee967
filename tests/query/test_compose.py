from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import create, load
from kafal_pipeline.config import Strategy, resolve
from kafal_pipeline.config.resolve import ConfigError
from kafal_pipeline.config.strategy import PARTS
from kafal_pipeline.query import QUERIES
from kafal_pipeline.query.base import ScoreQuery
from kafal_pipeline.query.compose import Compose
from kafal_pipeline.query.geometry.points import points_of
from kafal_pipeline.query.parts.quota import equal_quotas, mix_quotas
from kafal_pipeline.query.pool import Outputs

from .conftest import informed, make_query

RNG = np.random.default_rng
SCORES = [
    name
    for name, entry in QUERIES.items()
    if issubclass(load("query", name, QUERIES), ScoreQuery) and not entry.options
]


def from_parameters(**values):
    strategy = Strategy.model_validate(values)
    return create("query", strategy.name, strategy.options, QUERIES)


def test_the_configuration_knows_the_options_of_a_composition():
    assert tuple(item.name for item in fields(Compose)) == PARTS


def test_options_beside_the_parts_are_the_scores():
    query = from_parameters(score="ksas", prior_smoothing=1, quota="global_prototypes", diversity="k_centre")
    assert query.score_part == make_query("ksas", prior_smoothing=1)
    assert query == from_parameters(
        score={"name": "ksas", "prior_smoothing": 1}, quota="global_prototypes", diversity="k_centre"
    )


def test_a_composition_without_a_score_takes_the_default_and_its_options():
    assert from_parameters(quota="global_prototypes").score_part == make_query("entropy")
    assert from_parameters(name="compose", model="local").score_part == make_query("entropy", model="local")
    assert from_parameters(diversity="k_means", model="local").diversity == "k_means"


def test_labels_are_readable_and_distinct():
    options = [
        {"score": "ksas"},
        {"score": "ksas", "prior_smoothing": 1},
        {"score": "ksas", "quota": "global_prototypes"},
        {"score": "ksas", "diversity": "k_centre"},
        {"score": "ksas", "diversity": "k_centre", "candidates": 2},
        {"score": "ksas", "diversity": "k_centre", "space": "features"},
        {
            "score": "ksas",
            "diversity": "k_centre",
            "quota": "global_prototypes",
            "space": "normalised",
            "candidates": 9,
        },
    ]
    labels = [Strategy.model_validate(item).label for item in options]
    assert len(set(labels)) == len(labels)
    assert labels[3] == "compose_ksas_k_centre"
    assert Strategy.model_validate({"score": "ksas", "label": "mine"}).label == "mine"


@pytest.mark.parametrize("score", SCORES)
def test_without_other_parts_a_composition_is_its_score(make_pool, score):
    pool, query = make_pool(), make_query(score)
    composed, best = from_parameters(score=score).select(pool, 6, RNG(0)), ScoreQuery.select(query, pool, 6, RNG(0))
    assert composed.samples.tolist() == best.samples.tolist()
    assert composed.scores.tolist() == best.scores.tolist()


def test_feal_alone_skips_near_copies_and_as_a_score_leaves_them_to_the_diversity(make_pool):
    pool = make_pool(samples=30, seed=4)
    scores = make_query("feal").scores(pool, None)
    best = np.argsort(-scores)[:5]
    features = pool.features("local").clone()
    features[best[1]] = 2 * features[best[0]]
    pool._outputs["local", False] = Outputs(pool.logits("local"), features)
    composed, alone = (query.select(pool, 5, RNG(0)) for query in (from_parameters(score="feal"), make_query("feal")))
    assert composed.samples.tolist() == pool.samples[best].tolist()
    assert composed.scores.tolist() == scores[best].tolist()
    assert pool.samples[best[0]] in alone.samples
    assert pool.samples[best[1]] not in alone.samples


@pytest.mark.parametrize("quota", ["none", "global_prototypes", "towards_global_mix"])
@pytest.mark.parametrize(
    "diversity",
    [{}]
    + [
        {"diversity": name, "space": space}
        for name in ("k_means", "k_centre", "k_means_pp")
        for space in ("features", "normalised", "gradients")
    ],
    ids=lambda options: "-".join(options.values()) or "none",
)
def test_every_combination_gives_the_budget(make_pool, quota, diversity):
    query = from_parameters(score="entropy", quota=quota, **diversity)
    pool = informed(query, make_pool(samples=30), [make_pool(seed=1, client=1, label_classes=(2, 3))])
    for budget in (1, 7, 30, 40):
        chosen = query.select(pool, budget, RNG(0)).samples
        assert len(set(chosen.tolist())) == min(budget, 30)


def test_d2_sampling_begins_with_the_longest_embedding(make_pool):
    pool = make_pool(samples=30)
    longest = pool.samples[points_of(pool, "gradients", "global").dense().norm(dim=1).argmax()]
    query = make_query("compose", quota="none", diversity="k_means_pp", candidates=30)
    for seed in range(5):
        assert query.select(pool, 1, RNG(seed)).samples.tolist() == [longest]


def test_the_best_left_make_up_for_empty_clusters(make_pool):
    """All samples lie at one place: its cluster may give any of the candidates, the others are empty."""
    plain = make_pool()
    pool = make_pool(
        outputs=lambda kind, wanted: Outputs(plain.forward(kind, wanted).logits, torch.ones(len(wanted), 6))
    )
    query = make_query("compose", quota="none", diversity="k_means", space="features", candidates=3)
    best = make_query("margin").select(pool, 4, RNG(0)).samples.tolist()
    assert set(best) <= set(query.select(pool, 5, RNG(0)).samples.tolist())


def test_published_compositions_are_made_of_the_same_parts(make_pool):
    pool = informed(make_query("coverage"), make_pool(samples=40), [make_pool(seed=1, client=1)])
    pairs = {
        "coverage": {"score": "rank_sum", "quota": "global_prototypes", "diversity": "k_centre"},
        "cluster_margin": {
            "score": "margin",
            "diversity": "k_means",
            "space": "features",
            "candidates": 10,
            "weighted": True,
        },
        "fairfal": {"score": "entropy", "quota": "global_prototypes", "diversity": "k_centre"},
        "ahfal": {"score": "entropy", "model": "local", "quota": "towards_global_mix"},
    }
    options = {"fairfal": {"threshold": 0}, "ahfal": {"alike": 0}}
    for name, parts in pairs.items():
        query = make_query(name, **options.get(name, {}))
        mine = informed(query, pool, [make_pool(seed=1, client=1)])
        assert (
            query.select(mine, 6, RNG(3)).samples.tolist()
            == from_parameters(**parts).select(mine, 6, RNG(3)).samples.tolist()
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "kass"}, "Did you mean 'ksas'"),
        ({"score": "badge"}, "which is a query but no score"),
        ({"score": "ksas", "smoothing": 1}, "query.smoothing: unknown option. Did you mean 'prior_smoothing'"),
        ({"score": "ksas", "quota": "fair"}, "query.quota: found 'fair'"),
        ({"score": "ksas", "weighted": True}, "query.weighted"),
        ({"score": {"prior_smoothing": 1}}, "must be a name, or a mapping with the key `name`"),
        ({"score": "ksas", "diversity": "k_means", "candidates": 0}, "query.candidates: found 0"),
        ({"name": "compose", "quota": "none", "foo": 1}, "query.foo: unknown option"),
        ({"score": "qbc", "committee": ["local", "local"]}, "a member may be listed only once"),
    ],
)
def test_mistakes_are_reported(options, message):
    with pytest.raises(UserError, match=message):
        from_parameters(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "ksas", "space": "features"}, "query: space: found 'features', which changes nothing"),
        ({"score": "ksas", "space_model": "local", "diversity": "none"}, "query: space_model: found 'local'"),
        ({"name": "compose", "quota": "global_prototypes", "candidates": 8}, "query: candidates: found 8"),
    ],
)
def test_what_only_diversity_reads_is_refused_without(options, message):
    with pytest.raises(ConfigError, match=message):
        resolve({"query": options})
    assert resolve({"query": {**options, "diversity": "k_means"}}).query.name == "compose"


capacities = st.lists(st.integers(0, 30), min_size=2, max_size=6).map(np.array).filter(lambda c: c.sum() > 0)


@settings(deadline=None, max_examples=100)
@given(capacities, st.floats(0, 1), st.data())
def test_quotas_fill_the_budget_within_the_groups(capacity, share, data):
    budget = int(share * capacity.sum())
    counts = st.lists(st.integers(0, 20), min_size=len(capacity), max_size=len(capacity)).map(np.array)
    own, mix = data.draw(counts), data.draw(counts)
    equal = equal_quotas(capacity, budget)
    for quotas in (equal, mix_quotas(capacity, own, own + mix, budget)):
        assert quotas.sum() == budget
        assert ((quotas >= 0) & (quotas <= capacity)).all()
    room = equal < capacity
    if room.any():  # nobody with room left gets less than another, but for one
        assert equal[room].min() >= equal.max() - 1

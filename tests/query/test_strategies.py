"""Strategies of several steps against plain numpy, one sample after another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from kafal_pipeline.query.ifal import largest_of_rows, otsu, votes
from kafal_pipeline.query.pool import Outputs

from .conftest import informed, make_query

RNG = np.random.default_rng


def softmax(z):
    mass = np.exp(z - z.max(axis=1, keepdims=True))
    return mass / mass.sum(axis=1, keepdims=True)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def doubt(pool, model):
    return stats.entropy(softmax(pool.logits(model).numpy()), axis=1)


def embed(pool, **kwargs):
    """Return gradient embeddings as vectors."""
    z, h = (part.numpy() for part in pool.outputs("global", **kwargs))
    q = softmax(z)
    q[np.arange(len(z)), z.argmax(axis=1)] -= 1
    return np.array([np.outer(a, b).ravel() for a, b in zip(q, h, strict=True)])


def federation(make_pool, **options):
    return [make_pool(client=c, seed=10 + c, label_classes=(c, c + 1), labelled=8 + c, **options) for c in range(3)]


def nearest_prototype(pools, pool):
    """Pseudo-classes from all clients' samples themselves."""
    rows = np.concatenate([unit(p.features("global", labelled=True).numpy()) for p in pools])
    labels = np.concatenate([p.labels for p in pools])
    present = np.unique(labels)
    prototypes = unit(np.array([rows[labels == c].mean(axis=0) for c in present]))
    return present[(unit(pool.features("global").numpy()) @ prototypes.T).argmax(axis=1)]


def best_within(samples, scores, groups, quotas):
    picks = [s for c, q in enumerate(quotas) for s in samples[groups == c][np.argsort(-scores[groups == c])][:q]]
    return sorted(int(s) for s in picks)


def plain_equal_quotas(sizes, budget):
    quotas = [min(size, budget // len(sizes)) for size in sizes]
    largest_first = sorted(range(len(sizes)), key=lambda c: -sizes[c])
    while sum(quotas) < budget:
        for c in largest_first:
            if sum(quotas) < budget and quotas[c] < sizes[c]:
                quotas[c] += 1
    return quotas


def test_cluster_margin_takes_small_margins_near_weighted_centres(make_pool):
    pool = make_pool(samples=40, seed=6)
    p = np.sort(softmax(pool.logits("global").numpy()), axis=1)
    margins = p[:, -1] - p[:, -2]
    smallest = np.argsort(margins)[:10]
    rows, weights = pool.features("global").numpy()[smallest], 1 - margins[smallest]
    centre = (weights[:, None] * rows).sum(axis=0) / weights.sum()
    expected = pool.samples[smallest[np.linalg.norm(rows - centre, axis=1).argmin()]]
    chosen = make_query("cluster_margin").select(pool, 1, RNG(0))
    assert chosen.samples.tolist() == [expected]
    many = make_query("cluster_margin", candidates=2).select(pool, 8, RNG(0))
    assert set(many.samples.tolist()) <= set(pool.samples[np.argsort(margins)[:16]].tolist())


def test_alfa_mix_finds_the_smallest_mix_that_flips_a_label(make_pool):
    """By mixing features with each anchor as the paper writes it, a little less and a little more than that."""
    pool = make_pool(samples=25, seed=1, classes=4, label_classes=(0, 1, 3))
    weights = make_query("alfa_mix")._smallest_mix(pool).numpy()
    head = pool.head("global").weight.numpy()
    known = pool.features("global", labelled=True).numpy()
    anchors = [known[pool.labels == c].mean(axis=0) for c in np.unique(pool.labels)]
    z, h = (part.numpy() for part in pool.outputs("global"))
    gradients = (softmax(z) - np.eye(4)[z.argmax(axis=1)]) @ head

    def flips(i, epsilon):
        for anchor in anchors:
            toward = anchor - h[i]
            alpha = epsilon * np.linalg.norm(toward) * gradients[i] / np.linalg.norm(gradients[i]) / toward
            if ((h[i] + alpha * toward) @ head.T).argmax() != z[i].argmax():
                return True
        return False

    assert np.isfinite(weights).all()
    for i, weight in enumerate(weights):
        assert flips(i, weight * (1 + 1e-6))
        assert not flips(i, weight * (1 - 1e-6))


def test_alfa_mix_fills_up_at_random_where_too_few_labels_flip(make_pool):
    def outputs(kind, wanted):
        logits = torch.zeros(len(wanted), 4, dtype=torch.float64)
        logits[:, 0] = 1e6
        return Outputs(logits, torch.ones(len(wanted), 6, dtype=torch.float64))

    choices = {tuple(make_query("alfa_mix").select(make_pool(outputs=outputs), 4, RNG(s)).samples) for s in range(5)}
    assert len(choices) == 5


def clustered(make_pool, kind_of_clusters, samples=24, clusters=4, spread=0.01):
    """A pool whose features are tight clusters for one model, and random for the others."""
    rng = RNG(8)
    centres, place = np.eye(6)[:clusters] * 5, rng.integers(clusters, size=1000)
    tables = {k: rng.normal(size=(1000, 6)) for k in ("global", "local", "local_only")}
    tables[kind_of_clusters] = centres[place] + spread * rng.normal(size=(1000, 6))
    logits = {k: rng.normal(size=(1000, 4)) for k in tables}
    logits["local_only"] = np.zeros((1000, 4))

    def outputs(kind, wanted):
        return Outputs(torch.tensor(logits[kind][wanted]), torch.tensor(tables[kind][wanted]))

    return make_pool(samples=samples, outputs=outputs, labelled=0), place, tables


def test_logo_takes_the_largest_global_entropy_of_each_local_cluster(make_pool):
    pool, place, _ = clustered(make_pool, "local_only")
    entropy = doubt(pool, "global")
    groups = place[pool.samples]
    expected = best_within(pool.samples, entropy, groups, [1, 1, 1, 1])
    chosen = make_query("logo").select(pool, 4, RNG(0))
    assert sorted(chosen.samples.tolist()) == expected
    assert chosen.scores.tolist() == pytest.approx(
        sorted((entropy[pool.samples == s][0] for s in expected), reverse=True)
    )


def test_logo_makes_up_for_empty_clusters_in_turns(make_pool):
    pool, place, _ = clustered(make_pool, "local_only", clusters=3, spread=0.0)
    entropy, groups = doubt(pool, "global"), place[pool.samples]
    expected = best_within(pool.samples, entropy, groups, [2, 2, 2])
    assert sorted(make_query("logo").select(pool, 6, RNG(0)).samples.tolist()) == expected


def test_typiclust_takes_the_most_typical_of_the_largest_clusters_without_labels(make_pool):
    pool, place, tables = clustered(make_pool, "global", samples=40, spread=0.3)
    labelled = np.setdiff1d(np.flatnonzero(place == 2), pool.samples)[:3]
    pool = replace(pool, labelled=labelled, labels=np.zeros(3, dtype=np.int64))
    rows = unit(tables["global"])
    groups = place[pool.samples]
    sizes = np.bincount(groups, minlength=4) + np.array([0, 0, 3, 0])
    order = sorted(range(4), key=lambda c: (c == 2, -sizes[c]))
    expected = []
    for cluster in order:
        mine = pool.samples[groups == cluster]
        k = min(20, len(mine) // 2)
        spread = [np.sort(np.linalg.norm(rows[mine] - rows[s], axis=1))[1 : k + 1].mean() for s in mine]
        expected.append(int(mine[np.argmin(spread)]))
    limit = sorted(sizes.tolist())[1]
    assert sizes.min() < limit
    large = [sample for sample, cluster in zip(expected, order, strict=True) if sizes[cluster] >= limit]
    for smallest, samples in ((1, expected), (limit, large)):
        query = make_query("typiclust", clusters=4, smallest=smallest)
        for budget in range(1, len(samples) + 1):
            chosen = query.select(pool, budget, RNG(0))
            assert sorted(chosen.samples.tolist()) == sorted(samples[:budget])


@pytest.mark.parametrize("seed", range(4))
def test_probcover_covers_greedily(make_pool, seed):
    pool = make_pool(samples=30, seed=seed, labelled=4)
    rows, known = unit(pool.features("global").numpy()), unit(pool.features("global", labelled=True).numpy())
    delta = 0.7
    near = np.linalg.norm(rows[:, None] - rows, axis=2) <= delta
    open_ = ~(np.linalg.norm(rows[:, None] - known, axis=2) <= delta).any(axis=1)
    chosen = make_query("probcover", delta=delta).select(pool, 30, RNG(seed))
    left = np.ones(30, dtype=bool)
    for sample, score in zip(chosen.samples, chosen.scores, strict=True):
        position = int(np.searchsorted(pool.samples, sample))
        covers = (near & open_).sum(axis=1)
        assert score == covers[position] == covers[left].max()
        open_ &= ~near[position]
        left[position] = False


def test_probcover_finds_the_largest_pure_radius(make_pool):
    pool, place, tables = clustered(make_pool, "global", samples=40, spread=0.4)
    from kafal_pipeline.query.geometry.points import points_of

    points = points_of(pool, "normalised", "global")
    radius = make_query("probcover")._radius(points, 4, RNG(0))
    rows, groups = unit(tables["global"][pool.samples]), place[pool.samples]
    distances = np.linalg.norm(rows[:, None] - rows, axis=2)

    def purity(delta):
        return np.mean([len(set(groups[row <= delta])) == 1 for row in distances])

    assert purity(radius) >= 0.95
    assert purity(radius * 1.000001) < 0.95


@pytest.mark.parametrize("neighbours", [5, 40])
@pytest.mark.parametrize("namer", ["global", "local"])
def test_ifal_votes_are_those_of_reverse_neighbours(make_pool, namer, neighbours):
    pool = make_pool(samples=15, seed=3)
    rows, known = (unit(pool.features("local", labelled=flag).numpy()) for flag in (False, True))
    named = pool.logits(namer).argmax(dim=1).tolist()
    expected = np.ones((15, 4))  # one vote for every class
    for row, label in zip(known, pool.labels, strict=True):
        for neighbour in np.argsort(-(rows @ row))[:neighbours]:
            expected[neighbour, label] += 1
    for position, label in enumerate(named):
        others = [other for other in np.argsort(-(rows @ rows[position])) if other != position]
        for neighbour in others[:neighbours]:
            expected[neighbour, label] += 1
    expected /= expected.sum(axis=1, keepdims=True)
    first, second = votes(pool, "local", neighbours, ("distilled", namer))
    np.testing.assert_allclose(second.numpy(), expected)
    assert not np.allclose(first.numpy(), expected)


@pytest.mark.parametrize("columns", [5, 63, 64, 200, 333])
def test_the_largest_of_rows_are_found_in_groups(columns):
    table = torch.tensor(RNG(columns).normal(size=(7, columns)))
    values, places = largest_of_rows(table, 3)
    assert torch.equal(values.sort(dim=1, descending=True).values, table.topk(3, dim=1).values)
    assert torch.equal(table.gather(1, places), values)


@pytest.mark.parametrize("distance", ["sorted", "total_variation"])
def test_ifal_inconsistencies(make_pool, distance):
    pool = make_pool(samples=15, seed=3)
    query = make_query("ifal", distance=distance, neighbours=5)

    def w(p, q):
        if distance == "sorted":
            return stats.wasserstein_distance(p, q)
        return sum(abs(p - q)) / 2

    pi = {kind: votes(pool, kind, 5, ["global"])[0].numpy() for kind in ("global", "local", "distilled")}
    own = votes(pool, "local", 5, ["local"])[0].numpy()
    between, both = (values.numpy() for values in query.inconsistencies(pool))
    p_local = softmax(pool.logits("local").numpy())
    for i in range(15):
        d1, d2 = w(pi["local"][i], pi["distilled"][i]), w(pi["global"][i], pi["distilled"][i])
        ratio = max((d1 + 1e-5) / (d2 + 1e-5), (d2 + 1e-5) / (d1 + 1e-5))
        assert between[i] == pytest.approx(ratio * (d1 + d2), rel=1e-6, abs=1e-9)
        assert both[i] == pytest.approx(between[i] * w(own[i], p_local[i]), rel=1e-6, abs=1e-9)


def test_sorted_distance_is_blind_to_classes_and_total_variation_is_not():
    p, q = torch.tensor([[0.9, 0.1, 0.0]]), torch.tensor([[0.0, 0.1, 0.9]])
    assert float(make_query("ifal")._between(p, q)) == 0
    assert float(make_query("ifal", distance="total_variation")._between(p, q)) == pytest.approx(0.9)


@pytest.mark.parametrize("seed", range(5))
def test_otsu_divides_with_the_largest_variance_between(seed):
    values = RNG(seed).integers(0, 9, size=20) / 4

    def between(threshold):
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    candidates = np.unique(values)[:-1]
    assert between(otsu(values)) == pytest.approx(max(between(t) for t in candidates))


def test_ifal_chooses_among_candidates_above_the_threshold(make_pool):
    pool = make_pool(samples=60, seed=9)
    query = make_query("ifal", neighbours=10)
    between, both = (values.numpy() for values in query.inconsistencies(pool))
    above = [set(pool.samples[values > otsu(values)].tolist()) for values in (both, between)]
    assert set(query.select(pool, 3, RNG(0)).samples.tolist()) <= above[0]
    budget = len(above[0]) + 1
    chosen = set(query.select(pool, budget, RNG(0)).samples.tolist())
    assert len(above[1]) >= budget
    assert chosen <= above[1]
    assert query.select(pool, 58, RNG(0)).scores.tolist() == sorted(both, reverse=True)[:58]


@pytest.mark.parametrize("name", ["fairfal", "coverage"])
def test_quotas_over_global_prototypes_without_diversity(make_pool, name):
    pools = federation(make_pool, samples=40)
    pool = informed(make_query(name), pools[1], [pools[0], pools[2]])
    groups = nearest_prototype(pools, pool)
    query = make_query(name, candidates=1, **({"threshold": 0} if name == "fairfal" else {}))
    scores = doubt(pool, "global") if name == "fairfal" else make_query("rank_sum").scores(pool, None)
    quotas = plain_equal_quotas(np.bincount(groups, minlength=4).tolist(), 13)
    chosen = query.select(pool, 13, RNG(0))
    assert sorted(chosen.samples.tolist()) == best_within(pool.samples, scores, groups, quotas)


@pytest.mark.parametrize(
    ("name", "options"), [("coverage", {}), ("coverage", {"prior_smoothing": 30.0}), ("fairfal", {"threshold": 1})]
)
def test_greedy_k_centre_among_the_best_of_each_class(make_pool, name, options):
    """FairFAL's entropy is the local_only model's here; gradient embeddings are the global one's all the same."""
    pools, query = federation(make_pool, samples=60), make_query(name, **options)
    pool = informed(query, pools[1], [pools[0], pools[2]])
    groups = nearest_prototype(pools, pool)
    scores = make_query("rank_sum", **options).scores(pool, None) if name == "coverage" else doubt(pool, "local_only")
    quotas = plain_equal_quotas(np.bincount(groups, minlength=4).tolist(), 8)
    rows, known = embed(pool), embed(pool, labelled=True)
    expected = []
    for c, quota in enumerate(quotas):
        mine = np.flatnonzero(groups == c)
        best = mine[np.argsort(-scores[mine])][: 4 * quota].tolist()
        covered = list(known[pool.labels == c])
        if quota and not covered:
            expected.append(best[0])
            covered = [rows[best[0]]]
        while quota and len(expected) < sum(quotas[: c + 1]):
            farthest = max(best, key=lambda i: min(np.linalg.norm(rows[i] - k) for k in covered))
            expected.append(farthest)
            covered.append(rows[farthest])
    chosen = query.select(pool, 8, RNG(0))
    assert sorted(chosen.samples.tolist()) == sorted(pool.samples[expected].tolist())


def test_fairfal_asks_the_suiting_model_and_keeps_to_it(make_pool):
    pools = federation(make_pool, samples=30)
    query = make_query("fairfal")
    pool = informed(query, pools[1], [pools[0], pools[2]])

    def shares(item, kind):
        p = softmax(item.logits(kind, labelled=True).numpy())
        return np.mean([p[item.labels == c].mean(axis=0) for c in np.unique(item.labels)], axis=0)

    gamma = np.mean([shares(item, "global").min() / shares(item, "global").max() for item in pools])
    g, own = shares(pool, "global"), shares(pool, "local_only")
    expected = 1 - ((abs(g - own) / (g + own)).mean() + gamma) / 2
    chosen = query.select(pool, 6, RNG(0))
    assert chosen.memory["suits_global"].tolist() == pytest.approx([expected])
    for kept, model in ((0.9, "global"), (0.1, "local_only")):
        later = replace(pool, memory={"suits_global": np.array([kept])})
        again = make_query("fairfal", candidates=1).select(later, 6, RNG(0))
        assert again.memory["suits_global"].tolist() == [kept]
        entropy = dict(zip(pool.samples.tolist(), doubt(pool, model), strict=True))
        assert again.scores == pytest.approx([entropy[s] for s in again.samples.tolist()])


def test_ahfal_moves_the_labels_towards_those_of_all_clients(make_pool):
    pools = federation(make_pool, samples=40)
    query = make_query("ahfal")
    pool = informed(query, pools[0], pools[1:])
    counts = np.array([np.bincount(item.labels, minlength=4) for item in pools])
    own, mix = counts[0], counts.sum(axis=0) / counts.sum()
    lacking = np.maximum(mix * (own.sum() + 6) - own, 0)
    exact = 6 * lacking / lacking.sum()
    quotas = np.floor(exact).astype(int)
    for c in np.argsort(-(exact - quotas))[: 6 - quotas.sum()]:
        quotas[c] += 1
    groups, of_global = (pool.logits(model).numpy().argmax(axis=1) for model in ("local", "global"))
    assert (np.bincount(groups, minlength=4) >= quotas).all()
    deviations = (counts / counts.sum(axis=1, keepdims=True)).std(axis=0)
    assert query.share_deviations(pool) == pytest.approx(deviations)
    local, both = doubt(pool, "local"), (doubt(pool, "local") + doubt(pool, "global")) / 2
    for alike in (0.0, float(np.sort(deviations)[1:3].mean()), 1.0):
        low = np.flatnonzero(deviations < alike)
        scores = np.where(np.isin(groups, low) | np.isin(of_global, low), both, local)
        chosen = make_query("ahfal", alike=alike).select(pool, 6, RNG(0))
        assert sorted(chosen.samples.tolist()) == best_within(pool.samples, scores, groups, quotas)
    assert (
        0 < (np.isin(groups, low := np.flatnonzero(deviations < np.sort(deviations)[1:3].mean()))).sum() < len(groups)
    )
    assert len(low) == 2


@pytest.mark.parametrize(("neighbours", "similarity"), [(5, 0.85), (5, 0.0), (2, 0.0)])
def test_feal_skips_near_copies(make_pool, neighbours, similarity):
    """At a low similarity, how many neighbours are looked at decides."""
    pool, query = make_pool(samples=30, seed=4), make_query("feal", neighbours=neighbours, similarity=similarity)
    copies = pool.features("local").clone()
    scores = query.scores(pool, None)
    first, second, third = np.argsort(-scores)[:3]
    copies[second] = 2 * copies[first]
    pool._outputs["local", False] = Outputs(pool.logits("local"), copies)
    rows = unit(copies.numpy())
    cosines = rows @ rows.T - 2 * np.eye(30)
    expected = []
    for i in np.argsort(-scores):
        near = [j for j in np.argsort(-cosines[i])[:neighbours] if cosines[i, j] > similarity]
        if not set(near) & set(expected):
            expected.append(int(i))
    assert len(expected) >= 5
    chosen = query.select(pool, 5, RNG(0))
    assert chosen.samples.tolist() == pool.samples[expected[:5]].tolist()
    assert pool.samples[second] not in chosen.samples
    assert len(query.select(pool, 30, RNG(0)).samples) == 30


def test_chase_takes_unwatched_samples_last(make_pool):
    pool = make_pool(samples=20)
    chosen = make_query("chase").select(pool, 20, RNG(0))
    assert set(chosen.samples[:10].tolist()) == set(pool.watched["samples"].tolist())
    assert (chosen.scores[10:] == -1).all()

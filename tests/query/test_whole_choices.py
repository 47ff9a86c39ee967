"""Queries of several steps from their pools to their choices, written out sample by sample in float64.

Only the generator's draws are taken over, so that the choices must be the same, not merely as good.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from kafal_pipeline.query.pool import Outputs

from .conftest import informed, make_query
from .plain import (
    argmax,
    by_size,
    dot,
    entropy,
    k_means,
    k_means_pp,
    mean,
    minus,
    nearest_to_means,
    norm,
    rows,
    softmax,
    unit,
)

RNG = np.random.default_rng


def select(query, pool, budget, seed):
    """Return a choice and its positions in the pool."""
    chosen = query.select(pool, budget, RNG(seed))
    return chosen, np.searchsorted(pool.samples, chosen.samples).tolist()


def check(choice, positions, scores):
    """Compare a choice with the expected one, ordered as all are: the largest score first."""
    expected = sorted(positions, key=lambda i: -scores[i])
    assert choice[1] == expected
    np.testing.assert_allclose(choice[0].scores, [scores[i] for i in expected], rtol=1e-9, atol=1e-12)


def with_twins(make_pool, kinds, places=5, **options):
    """A pool where models of some kinds see no more than so many different images."""
    plain = make_pool(**options)

    def outputs(kind, wanted):
        return Outputs(*plain.forward(kind, np.asarray(wanted) % places if kind in kinds else wanted))

    return make_pool(outputs=outputs, **options)


def lying_apart(candidates, vectors, budget, rng, choice, scores=None):
    """Return the candidates nearest to the k-means, weighted by scores; of a pair, the one that was chosen."""
    liked = [spot for spot, i in enumerate(candidates) if i in choice[1]]
    weights = scores and [scores[i] for i in candidates]
    spots = nearest_to_means([vectors[i] for i in candidates], budget, rng, liked, weights)
    return [candidates[spot] for spot in spots]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("places", [1000, 5])
def test_badge(make_pool, seed, places):
    """With 5 places for 18 samples, all distances are 0 in the end."""
    pool = with_twins(make_pool, ["global"], places, samples=18, seed=seed)
    embedded = []
    for z, h in zip(rows(pool.logits("global")), rows(pool.features("global")), strict=True):
        p = softmax(z)
        embedded.append([(p[c] - (c == argmax(z))) * v for c in range(4) for v in h])
    for budget in (1, 4, 9, 18):
        drawn, distances = k_means_pp(embedded, budget, RNG(seed), longest=True)
        check(select(make_query("badge"), pool, budget, seed), drawn, dict(zip(drawn, distances, strict=True)))
    assert (distances[-1] == 0) == (places == 5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("places", [1000, 5])
def test_logo(make_pool, seed, places):
    """With 5 places there are no more than 5 clusters that are not empty."""
    pool = with_twins(make_pool, ["local_only"], places, samples=18, seed=seed)
    scores = [entropy(softmax(z)) for z in rows(pool.logits("global"))]
    embedded = [
        [(1 - max(softmax(z))) * v for v in h]
        for z, h in zip(rows(pool.logits("local_only")), rows(pool.features("local_only")), strict=True)
    ]
    for budget in (1, 4, 9, 18):
        groups, _ = k_means(embedded, budget, RNG(seed))
        queues = [sorted(group, key=lambda i: -scores[i]) for group in groups]
        taken = []
        while len(taken) < budget:
            turn = sorted((queue.pop(0) for queue in queues if queue), key=lambda i: -scores[i])
            taken += turn[: budget - len(taken)]
        check(select(make_query("logo"), pool, budget, seed), taken, scores)


@pytest.mark.parametrize("seed", range(4))
def test_cluster_margin(make_pool, seed):
    pool = make_pool(samples=40, seed=seed)
    scores, features = [], rows(pool.features("global"))
    for z in rows(pool.logits("global")):
        *_, second, first = sorted(softmax(z))
        scores.append(1 - (first - second))
    for budget in (1, 2, 4, 7, 13, 40):
        choice, rng = select(make_query("cluster_margin", candidates=3), pool, budget, seed), RNG(seed)
        best = by_size(scores, rng)[: 3 * budget]
        taken = lying_apart(best, features, budget, rng, choice, scores)
        taken += [i for i in best if i not in taken][: budget - len(taken)]
        check(choice, taken, scores)


@pytest.mark.parametrize("seed", [1, 7, 9])
def test_alfa_mix(make_pool, seed):
    pool = make_pool(samples=18, seed=seed, label_classes=(0, 1, 3))
    weight, known = rows(pool.head("global").weight), rows(pool.features("global", labelled=True))
    anchors = [mean([h for h, y in zip(known, pool.labels, strict=True) if y == c]) for c in sorted(set(pool.labels))]
    logits, features = rows(pool.logits("global")), rows(pool.features("global"))
    directions = [unit(h) for h in features]

    def flips(i, epsilon):
        z, h = logits[i], features[i]
        error = [v - (c == argmax(z)) for c, v in enumerate(softmax(z))]
        u = [dot(error, column) for column in zip(*weight, strict=True)]
        for anchor in anchors:
            toward = minus(anchor, h)
            alpha = [epsilon * norm(toward) * g / norm(u) / t for g, t in zip(u, toward, strict=True)]
            mixed = [v + a * t for v, a, t in zip(h, alpha, toward, strict=True)]
            if argmax([dot(line, mixed) for line in weight]) != argmax(z):
                return True
        return False

    scores = []
    for i in range(18):  # by bisection: what has flipped stays so
        low, high = 0.0, 100.0
        assert flips(i, high)
        while high - low > 1e-13:
            middle = (low + high) / 2
            low, high = (low, middle) if flips(i, middle) else (middle, high)
        scores.append(1 / (1 + high))
    ways = set()
    for step in (0.03125, 0.25):
        for budget in (1, 2, 5, 9, 13, 16, 18):
            choice = select(make_query("alfa_mix", step=step), pool, budget, seed)
            rng, cap, taken = RNG(seed), 0.0, []
            while cap < 1 and len(taken) <= budget:
                cap += step
                taken = [i for i in range(18) if flips(i, cap / sqrt(6))]
            ways.add((cap > step, int(np.sign(len(taken) - budget))))
            if len(taken) > budget:
                taken = lying_apart(taken, directions, budget, rng, choice)
            rest = [i for i in rng.permutation(18).tolist() if i not in taken]
            check(choice, (taken + rest)[:budget], scores)
    assert ways >= {(False, 1), (True, 1), (True, -1)}, "not every way through was taken"


def votes(pool, model, namer):
    """Return normalised votes: each sample's class for those of its 6 nearest unlabelled ones, itself left out."""
    own, known = ([unit(h) for h in rows(pool.features(model, labelled=labelled))] for labelled in (False, True))
    voters = [(h, y, None) for h, y in zip(known, pool.labels.tolist(), strict=True)]
    voters += [(h, argmax(z), i) for i, (h, z) in enumerate(zip(own, rows(pool.logits(namer)), strict=True))]
    counts = [[1] * 4 for _ in own]
    for h, y, voter in voters:
        others = [i for i in range(len(own)) if i != voter]
        for i in sorted(others, key=lambda i: -dot(own[i], h))[:6]:
            counts[i][y] += 1
    return [[n / sum(count) for n in count] for count in counts]


def otsu(values):
    def between(threshold):
        low, high = [v for v in values if v <= threshold], [v for v in values if v > threshold]
        return len(low) * len(high) * (sum(low) / len(low) - sum(high) / len(high)) ** 2

    return max(sorted(values)[:-1], key=between)


@pytest.mark.parametrize("seed", [0, 6])
@pytest.mark.parametrize("distance", ["sorted", "total_variation"])
def test_ifal(make_pool, seed, distance):
    pool = make_pool(samples=24, seed=seed)

    def w(p, q):
        if distance == "sorted":
            return sum(abs(a - b) for a, b in zip(sorted(p), sorted(q), strict=True)) / 4
        return sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2

    of = {model: votes(pool, model, "global") for model in ("global", "local", "distilled")}
    own, p = votes(pool, "local", "local"), [softmax(z) for z in rows(pool.logits("local"))]
    first, whole = [], []
    for i in range(24):
        d1, d2 = w(of["local"][i], of["distilled"][i]), w(of["global"][i], of["distilled"][i])
        first.append(max((d1 + 1e-5) / (d2 + 1e-5), (d2 + 1e-5) / (d1 + 1e-5)) * (d1 + d2))
        whole.append(first[i] * w(own[i], p[i]))
    directions = [unit(h) for h in rows(pool.features("local"))]
    ways = set()
    for budget in range(1, 25):
        choice = select(make_query("ifal", distance=distance, neighbours=6), pool, budget, seed)
        rng = RNG(seed)
        order, taken = by_size(whole, rng), []
        above = [[i for i in range(24) if values[i] > otsu(values)] for values in (whole, first)]
        enough = [candidates for candidates in above if len(candidates) >= budget]
        if enough:
            taken = lying_apart(enough[0], directions, budget, rng, choice)
        ways.add(above.index(enough[0]) if enough else None)
        taken += [i for i in order if i not in taken][: budget - len(taken)]
        check(choice, taken, whole)
    assert ways == {0, 1, None}, "not every way through was taken"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("passes", "candidates"), [(3, 2), (3, 25), (4, 1)])
def test_dropquery(make_pool, seed, passes, candidates):
    pool = make_pool(samples=30, seed=seed)
    weight, features = rows(pool.head("global").weight), rows(pool.features("global"))
    directions, ways = [unit(h) for h in features], set()
    for budget in (1, 2, 6, 13, 30):
        query = make_query("dropquery", passes=passes, candidates=candidates)
        choice, rng = select(query, pool, budget, seed), RNG(seed)
        changes = [0] * 30
        for _ in range(passes):
            kept = rng.random((30, 6), dtype=np.float32) >= 0.75
            for i, h in enumerate(features):
                dropped = [v * 4 if keep else 0.0 for v, keep in zip(h, kept[i], strict=True)]
                changes[i] += argmax([dot(w, dropped) for w in weight]) != argmax([dot(w, h) for w in weight])
        order = by_size(changes, rng)
        above = [i for i in order if changes[i] > passes / 2]
        among = above if len(above) >= candidates * budget else order[: candidates * budget]
        ways.add(among is above)
        taken = lying_apart(among, directions, budget, rng, choice)
        taken += [i for i in order if i not in taken][: budget - len(taken)]
        check(choice, taken, [c / passes for c in changes])
    assert ways == ({False} if candidates == 25 else {True, False})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("labelled", [0, 4, 12])
def test_leverage(make_pool, seed, labelled):
    """By a new inverse for every sample; of the clients, one has too few labels to report them."""
    pools = [make_pool(samples=20, seed=seed, labelled=labelled)]
    pools += [make_pool(client=c, seed=10 + c, labelled=count) for c, count in ((1, 3), (2, 10), (3, 40))]
    known = [
        [unit(h) for h in rows(pool.features("global", labelled=True))] if len(pool.labels) else [] for pool in pools
    ]
    directions = np.array([unit(h) for h in rows(pools[0].features("global"))])
    query = make_query("leverage", penalty=0.3)
    reported = np.array(known[0] + known[2] + known[3])
    choice = select(query, informed(query, pools[0], pools[1:]), 20, seed)
    taken, scores, order = [], {}, RNG(seed).permutation(20)
    while len(taken) < 20:
        design = np.concatenate([reported, directions[taken]])
        inverse = np.linalg.inv(design.T @ design + 0.3 * np.eye(6))
        best = max((i for i in order if i not in taken), key=lambda i: directions[i] @ inverse @ directions[i])
        scores[best] = directions[best] @ inverse @ directions[best]
        taken.append(best)
    check(choice, taken, scores)


@pytest.mark.parametrize("seed", range(3))
def test_tm_fal(make_pool, seed):
    pool, committee = make_pool(samples=25, seed=seed), ("global", "local", "downloaded")
    scores, classes = [], [argmax(z) for z in rows(pool.logits("global"))]
    for i in range(25):
        features = [rows(pool.features(model))[i] for model in committee]
        p = mean([softmax(rows(pool.logits(model))[i]) for model in committee])
        deviations = [sqrt(sum((v - sum(d) / 3) ** 2 for v in d) / 3) for d in zip(*features, strict=True)]
        scores.append(sum(deviations) / 6 / (max(p) + 1e-14))
    queues = [[i for i in by_size(scores, RNG(seed)) if classes[i] == c] for c in range(4)]
    for budget in (1, 4, 8, 25):
        queues_left = sorted((list(queue) for queue in queues), key=lambda queue: -len(queue))
        taken = []
        while len(taken) < budget:
            taken += [queue.pop(0) for queue in queues_left if queue][: budget - len(taken)]
        check(select(make_query("tm_fal"), pool, budget, seed), taken, scores)

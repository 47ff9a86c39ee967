"""What formulas are made of, in plain Python and float64: lists of numbers, one after another."""

from __future__ import annotations

from math import exp, log, sqrt


def rows(tensor):
    return tensor.numpy().tolist()


def softmax(z):
    shift = max(z)
    mass = [exp(v - shift) for v in z]
    return [m / sum(mass) for m in mass]


def entropy(p):
    return -sum(v * log(v) for v in p if v > 0)


def argmax(values):
    return max(range(len(values)), key=values.__getitem__)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def minus(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def norm(a):
    return sqrt(dot(a, a))


def unit(a):
    return [x / norm(a) for x in a]


def mean(vectors):
    return weighted_mean(vectors, [1.0] * len(vectors))


def weighted_mean(vectors, weights):
    return [dot(weights, column) / sum(weights) for column in zip(*vectors, strict=True)]


def by_size(values, rng):
    """Return positions, the largest first; of equal values the first in a permutation."""
    return sorted(rng.permutation(len(values)).tolist(), key=lambda i: -values[i])


def k_means_pp(vectors, count, rng, *, longest, weights=None):
    """Return distinct positions drawn by D^2 sampling, and the distance of each to the nearest before (or its length).

    The generator gives a permutation, in whose order chances are added up, and then one number a draw. Weights multiply
    the chances.
    """
    weights = weights or [1.0] * len(vectors)
    order = rng.permutation(len(vectors)).tolist()
    taken, gaps = [], []

    def gap(i):
        return min(norm(minus(vectors[i], vectors[j])) for j in taken) if taken else norm(vectors[i])

    while len(taken) < count:
        left = [i for i in order if i not in taken]
        chances = [weights[i] * (gap(i) ** 2 if taken else 1.0) for i in left]
        if longest and not taken:
            new = max(left, key=gap)
        elif sum(chances) == 0:
            new = left[rng.integers(len(left))]
        else:
            mark, reached = rng.random() * sum(chances), 0.0
            for new, chance in zip(left, chances, strict=True):  # noqa: B007 - the last one is what is drawn
                reached += chance
                if reached > mark:
                    break
        gaps.append(gap(new))
        taken.append(new)
    return taken, gaps


def k_means(vectors, clusters, rng, weights=None):
    """Return the groups of Lloyd's algorithm, lists of positions, and each group's mean; a group may be empty."""
    weights = weights or [1.0] * len(vectors)
    means = [vectors[i] for i in k_means_pp(vectors, clusters, rng, longest=False, weights=weights)[0]]
    groups = None
    while True:
        before, groups = groups, [[] for _ in means]
        for i, vector in enumerate(vectors):
            groups[argmax([-norm(minus(vector, centre)) for centre in means])].append(i)
        if groups == before:
            return groups, means
        means = [
            weighted_mean([vectors[i] for i in group], [weights[i] for i in group]) if group else old
            for group, old in zip(groups, means, strict=True)
        ]


def nearest_to_means(vectors, clusters, rng, liked, weights=None):
    """Return of each group that is not empty the position nearest to its mean.

    Both of a pair are equally near, and rounding decides between them; here `liked` ones come first.
    """
    groups, means = k_means(vectors, clusters, rng, weights)
    return [
        min(group, key=lambda i: (round(norm(minus(vectors[i], centre)), 9), i not in liked))
        for group, centre in zip(groups, means, strict=True)
        if group
    ]

"""Quotas: how many samples are taken of each group."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.query.pool import Arrays, PoolView


class Groups(NamedTuple):
    """A grouping of the pool.

    `group` is the group of each sample, int64 ``(n,)``; `quotas` how many are taken of each, int64 ``(G,)``, at most
    the group's size, their sum the budget; `classes` tells whether groups are classes.
    """

    group: NDArray[np.int64]
    quotas: NDArray[np.int64]
    classes: bool


class Quota(Protocol):
    """Groups a pool. Has a `summary` if it must know the federation (`kafal_pipeline.query.base.Summarises`)."""

    def groups(self, pool: PoolView, budget: int) -> Groups:
        """Return the groups and their quotas for a budget of at most the pool's size."""


@dataclass(frozen=True)
class NoQuota:
    """All samples in one group."""

    def groups(self, pool: PoolView, budget: int) -> Groups:
        return Groups(np.zeros(len(pool), dtype=np.int64), np.array([budget]), classes=False)


@dataclass(frozen=True)
class GlobalPrototypes:
    """`equal_quotas` over pseudo-classes: the class of the global prototype that is nearest by cosine (FairFAL).

    A prototype is the normalised mean of all clients' normalised global features of that class, made of sums ``(C, d)``
    that hide single samples; a class that nobody has a label of has none, and no sample is of it. Of equal cosines the
    lower class counts.
    """

    def summary(self, pool: PoolView) -> Arrays:
        if len(pool.labelled):
            features = F.normalize(pool.features("global", labelled=True), dim=1)
        else:
            features = torch.zeros((0, pool.head("global").weight.shape[1]), dtype=torch.float64)
        labels = torch.as_tensor(pool.labels, device=features.device)
        membership = F.one_hot(labels, pool.num_classes).to(features.dtype)
        return {"prototype_sums": (membership.T @ features).cpu().numpy(), "label_counts": pool.label_counts}

    def groups(self, pool: PoolView, budget: int) -> Groups:
        sums, counts = (
            np.sum([summary[name] for summary in pool.summaries.values()], axis=0)
            for name in ("prototype_sums", "label_counts")
        )
        features = F.normalize(pool.features("global"), dim=1)
        prototypes = F.normalize(torch.as_tensor(sums, device=features.device), dim=1)
        cosines = features @ prototypes.T
        cosines[:, torch.as_tensor(counts == 0, device=features.device)] = -torch.inf
        group = cosines.argmax(dim=1).cpu().numpy()
        return Groups(group, equal_quotas(np.bincount(group, minlength=pool.num_classes), budget), classes=True)


@dataclass(frozen=True)
class TowardsGlobalMix:
    """`mix_quotas` over the local model's predictions: the client's label mix moves towards that of all clients."""

    def summary(self, pool: PoolView) -> Arrays:
        return {"label_counts": pool.label_counts}

    def groups(self, pool: PoolView, budget: int) -> Groups:
        group = pool.logits("local").argmax(dim=1).cpu().numpy()
        capacity = np.bincount(group, minlength=pool.num_classes)
        mix = np.sum([summary["label_counts"] for summary in pool.summaries.values()], axis=0)
        return Groups(group, mix_quotas(capacity, pool.label_counts, mix, budget), classes=True)


QUOTAS: dict[str, Callable[[], Quota]] = {
    "none": NoQuota,
    "global_prototypes": GlobalPrototypes,
    "towards_global_mix": TowardsGlobalMix,
}


def equal_quotas(capacity: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Return ``floor(budget / C)`` for each group; what is left over goes one by one, to the largest groups first.

    `capacity`: size of each group, ``(C,)``; their sum is at least `budget`.

    >>> equal_quotas(np.array([9, 1, 5, 0]), 9).tolist()
    [4, 1, 4, 0]
    """
    quotas = np.minimum(capacity, budget // len(capacity))
    return one_by_one(quotas, capacity, budget)


def one_by_one(quotas: NDArray[np.int64], capacity: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Give the groups with room one more each, in turns, the largest group first, until `budget` is reached."""
    quotas, order = quotas.copy(), np.argsort(-capacity, kind="stable")
    while (missing := budget - int(quotas.sum())) > 0:
        room = order[quotas[order] < capacity[order]]
        quotas[room[:missing]] += 1
    return quotas


def mix_quotas(
    capacity: NDArray[np.int64], own: NDArray[np.int64], mix: NDArray[np.int64], budget: int
) -> NDArray[np.int64]:
    """Return quotas that bring ``own + quotas`` closest to the proportions of `mix`.

    A class lacks ``max(0, mix_y / sum(mix) * (sum(own) + budget) - own_y)``; the budget is divided in proportion to
    that, fractions by the largest remainder, and what groups cannot fill goes `one_by_one` to those with room.

    >>> mix_quotas(np.array([9, 9, 9]), np.array([6, 2, 0]), np.array([10, 10, 0]), 4).tolist()
    [0, 4, 0]
    """
    share = mix / mix.sum() if mix.sum() else np.full(len(mix), 1 / len(mix))
    lacking = np.maximum(share * (own.sum() + budget) - own, 0.0)
    # never all 0: the wanted counts sum to more than the own ones whenever there is a budget
    exact = budget * lacking / lacking.sum() if lacking.sum() > 0 else np.zeros(len(mix))
    quotas = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - quotas), kind="stable")
    quotas[order[: max(0, budget - int(quotas.sum()))]] += int(lacking.sum() > 0)
    return one_by_one(np.minimum(quotas, capacity), capacity, budget)

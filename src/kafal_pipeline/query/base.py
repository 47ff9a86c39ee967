"""What a query is given and what it returns; every strategy's file documents only what is its own.

A query is a dataclass whose fields are its options, with one method::

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection

`pool` is one client's view of its own samples, `budget` the number of samples to choose (at most the pool's size) and
`rng` the only source of randomness. A query never sees a label of an unlabelled sample, nor another client's data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

QueryModel = Literal["global", "local", "downloaded"]
"""The aggregated global model; the client's own after its last training; the global one it last downloaded."""


class Outputs(NamedTuple):
    """Of one model in evaluation mode, without augmentation: logits ``(n, C)`` and penultimate features ``(n, d)``."""

    logits: Tensor
    features: Tensor


class Selection(NamedTuple):
    """The chosen samples, best first, with their scores: int64 ``(budget,)`` and float64 ``(budget,)``."""

    samples: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class PoolView:
    """One client's pool, with model outputs that are computed on first use and kept.

    Attributes
    ----------
    client
        The client's number.
    samples
        Indices of its unlabelled samples in the training set, ascending, int64 ``(n,)``.
    labelled, labels
        Indices and labels of its labelled samples, int64 ``(m,)``.
    num_classes
        Number of classes.
    forward
        Computes `Outputs` of a model for given samples.
    """

    client: int
    samples: NDArray[np.int64]
    labelled: NDArray[np.int64]
    labels: NDArray[np.int64]
    num_classes: int
    forward: Callable[[QueryModel, NDArray[np.int64]], Outputs]

    @cached_property
    def label_counts(self) -> NDArray[np.int64]:
        """Labelled samples of each class before the query, ``(C,)``."""
        return np.bincount(self.labels, minlength=self.num_classes)

    @cached_property
    def _outputs(self) -> dict[str, Outputs]:
        return {}

    def outputs(self, model: QueryModel) -> Outputs:
        """Return logits and features of the unlabelled samples, in the order of `samples`."""
        if model not in self._outputs:
            self._outputs[model] = self.forward(model, self.samples)
        return self._outputs[model]

    def logits(self, model: QueryModel) -> Tensor:
        """Return logits of the unlabelled samples, ``(n, C)``."""
        return self.outputs(model).logits

    def features(self, model: QueryModel) -> Tensor:
        """Return penultimate features of the unlabelled samples, ``(n, d)``."""
        return self.outputs(model).features


class Query(Protocol):
    """Chooses samples; see the module's text."""

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return exactly ``min(budget, len(pool.samples))`` distinct samples of the pool."""
        ...


def largest(
    samples: NDArray[np.int64], scores: NDArray[np.float64], budget: int, rng: np.random.Generator
) -> Selection:
    """Return the samples of the largest scores; ties are broken by a permutation drawn from `rng`.

    Parameters
    ----------
    samples
        Ascending sample indices, ``(n,)``.
    scores
        Their finite scores, ``(n,)``.

    Raises
    ------
    ValueError
        If a score is not finite: sorted among the others it would decide silently.

    Examples
    --------
    >>> largest(np.array([3, 5, 9]), np.array([0.1, 0.7, 0.2]), 2, np.random.default_rng(0)).samples.tolist()
    [5, 9]
    """
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
    shuffled = rng.permutation(len(samples))
    order = shuffled[np.argsort(-scores[shuffled], kind="stable")][:budget]
    return Selection(samples[order], np.asarray(scores, dtype=np.float64)[order])

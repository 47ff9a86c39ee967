"""Uncertainty herding: max_herding for few labels, uncertainty for many, by itself."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.geometry.herding import SAMPLE, herding, spacing
from kafal_pipeline.query.geometry.points import points_of
from kafal_pipeline.query.margin import Margin
from kafal_pipeline.query.pool import PoolView, QueryModel

TEMPERATURES = 10.0 ** np.linspace(-1, 2, 31)
BINS = 15  # of confidence, in the calibration error
HELD_OUT = 10  # labels at least that tell a temperature


@dataclass(frozen=True)
class UHerding:
    r"""Largest gain in uncertainty coverage, begun with the client's labelled samples.

    .. math::
        x^* = \arg\max_x \frac 1 n \sum_n u_n \max(K(n, x) - m_n, 0), \quad
        u_n = 1 - (p_{(1)} - p_{(2)}), \quad p = \mathrm{softmax}(z_n / T)

    with K and m as in `kafal_pipeline.query.max_herding`; u = 1 as long as the client has no label. For T to infinity
    it is max_herding, for :math:`\sigma` to 0 margin sampling. Both follow the labels:

    - T has the least calibration error (15 bins) on labels that the model had not seen: those of the samples chosen
      last, predicted before they were labelled. Choosing by confidence does not bias it, since it compares accuracy and
      confidence at each confidence. The published method trains a second model on a part of the labels instead. With
      fewer than 10 such labels, as at the first query, T is 1.
    - :math:`\sigma` is the median distance of a labelled sample to the nearest labelled one that is no copy; 1 where
      there is none. The published minimum collapses on near copies.

    `sigma`, `temperature`: numbers in the place of these rules. `sample`: as in max_herding. The score is the gain.

    Source: Bae, Oliveira and Sutherland, "Uncertainty Herding: One Active Learning Method for All Label Budgets", ICLR
    2025.
    """

    model: QueryModel = "global"
    sigma: Annotated[float, Field(ge=1e-3, le=1e3)] | None = None
    temperature: Annotated[float, Field(ge=1e-3, le=1e9)] | None = None
    sample: Annotated[int, Field(ge=1)] = SAMPLE

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        points, seeds = points_of(pool, "normalised", self.model), None
        sigma, weights = self.sigma or 1.0, None
        logits = pool.logits(self.model)
        if len(pool.labelled):
            seeds = points_of(pool, "normalised", self.model, labelled=True)
            sigma = spacing(seeds) if self.sigma is None else self.sigma
            temperature = self._temperature(pool) if self.temperature is None else self.temperature
            weights = Margin.of((logits / temperature).log_softmax(dim=1)).cpu().numpy()
        count = min(budget, len(pool))
        positions, gains = herding(points, seeds, count, rng, sigma=sigma, weights=weights, sample=self.sample)
        kept = {"samples": pool.samples[positions], "logits": logits.cpu().numpy()[positions]}
        return Selection(pool.samples[positions], gains, kept)

    def _temperature(self, pool: PoolView) -> float:
        if not pool.memory:
            return 1.0
        samples: NDArray[np.int64] = np.asarray(pool.memory["samples"], dtype=np.int64)
        known = np.isin(samples, pool.labelled)  # people may have declined some
        labels = pool.labels[np.searchsorted(pool.labelled, samples[known])]
        return calibrated_temperature(torch.as_tensor(np.asarray(pool.memory["logits"])[known]), labels)


def calibrated_temperature(logits: Tensor, labels: NDArray[np.int64]) -> float:
    """Return the temperature of the least calibration error, of equals the nearest to 1; 1 for too few labels."""
    if len(labels) < HELD_OUT:
        return 1.0
    errors = np.array([calibration_error((logits / t).softmax(dim=1).numpy(), labels) for t in TEMPERATURES])
    best = np.flatnonzero(errors <= errors.min() + 1e-12)
    return float(TEMPERATURES[best[np.abs(np.log(TEMPERATURES[best])).argmin()]])


def calibration_error(p: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean over samples of |accuracy - mean confidence| of their bin, bins of equal width.

    >>> round(calibration_error(np.array([[0.9, 0.1], [0.92, 0.08], [0.4, 0.6]]), np.array([0, 1, 1])), 6)
    0.406667
    """
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(labels))

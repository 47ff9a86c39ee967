"""ALFA-Mix: samples whose prediction flips when their features are mixed a little with a class's."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.query.base import Selection, chosen, filled
from kafal_pipeline.query.geometry.k_means import k_means, nearest_to_centres
from kafal_pipeline.query.geometry.points import Points, points_of
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class ALFAMix:
    r"""Candidates flip their label for some anchor; k-means picks b of them that lie apart.

    With the anchor :math:`a_c` = mean feature of class c in the labelled set, u = gradient of the pseudo-label's
    cross-entropy at the features, the paper's closed form of the mixing weights is

    .. math::
        \alpha = \epsilon \, \|a_c - h\| \, u / \|u\| \oslash (a_c - h), \qquad
        h + \alpha (a_c - h) = h + \epsilon \, \|a_c - h\| \, u / \|u\|, \qquad u = W^T (p - e_{\hat y})

    Logits are linear along u, so that the smallest :math:`\epsilon` that flips the label has a closed form too: with
    :math:`s` the step at which another class overtakes, :math:`\epsilon^*(x) = s(x) / \max_c \|a_c - h\|`. As in the
    published code, :math:`\epsilon \sqrt d` grows from `step` in steps of `step` up to 1 until more than b samples
    flip; these are the candidates. Normalised features of the candidates are clustered (k-means, b clusters) and the
    nearest to each centre is taken; what is missing is filled at random. Differences: the flips are computed exactly,
    not by trying every anchor in turn; the published learned mixing weights are left out. The score is :math:`1 / (1 +
    \epsilon^*)`.

    Source: Parvaneh et al., "Active Learning by Feature Mixing", CVPR 2022.
    """

    model: QueryModel = "global"
    step: Annotated[float, Field(ge=1e-4, le=1)] = 0.03125

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        budget = min(budget, len(pool))
        weights = self._smallest_mix(pool).cpu().numpy()
        candidates = np.empty(0, dtype=np.int64)
        scale = np.sqrt(pool.features(self.model).shape[1])
        for cap in np.arange(1, int(np.ceil(1 / self.step)) + 1) * self.step:
            candidates = np.flatnonzero(weights * scale < cap)
            if len(candidates) > budget:
                break
        taken = candidates
        if len(candidates) > budget:
            points = points_of(pool, "normalised", self.model).take(candidates)
            taken = candidates[nearest_to_centres(*k_means(points, budget, rng))]
        positions = filled(taken, rng.permutation(len(pool)), budget)
        return chosen(pool.samples, positions, 1 / (1 + weights))

    def _smallest_mix(self, pool: PoolView) -> Tensor:
        """Return the smallest mixing weight that flips each sample's label; infinite where none does, ``(n,)``."""
        logits, features = pool.outputs(self.model)
        weight, _ = pool.head(self.model)
        predicted = logits.argmax(dim=1)
        own = F.one_hot(predicted, logits.shape[1])
        direction = F.normalize((logits.softmax(dim=1) - own) @ weight, dim=1)
        speed = direction @ weight.T
        gain = speed - speed.gather(1, predicted.unsqueeze(1))
        behind = logits.gather(1, predicted.unsqueeze(1)) - logits
        overtakes = (gain > 0) & (own == 0)
        steps = torch.where(overtakes, behind / gain.where(overtakes, torch.ones_like(gain)), torch.inf)
        farthest = _distances_to_anchors(pool, features, self.model)
        mix = steps.min(dim=1).values / farthest
        return torch.where(farthest > 0, mix, torch.inf)


def _distances_to_anchors(pool: PoolView, features: Tensor, model: QueryModel) -> Tensor:
    """Return the distance of each sample to the farthest class anchor, ``(n,)``; 0 if nothing is labelled."""
    if not len(pool.labelled):
        return torch.zeros_like(features[:, 0])
    known = pool.features(model, labelled=True)
    membership = F.one_hot(torch.as_tensor(pool.labels, device=known.device), pool.num_classes).to(known.dtype)
    present = membership.sum(dim=0) > 0
    anchors = (membership.T @ known)[present] / membership.sum(dim=0)[present].unsqueeze(1)
    return Points((features,)).squared_distances(Points((anchors,))).max(dim=1).values.sqrt()

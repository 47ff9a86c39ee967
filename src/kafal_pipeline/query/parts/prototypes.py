"""Global prototypes: the mean direction of each class over all clients, made of sums that hide single samples."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.query.pool import Arrays, PoolView


def prototype_summary(pool: PoolView) -> Arrays:
    """Return the sum of the labelled samples' normalised global features by class, ``(C, d)``, and the label counts."""
    if len(pool.labelled):
        features = F.normalize(pool.features("global", labelled=True), dim=1)
    else:
        features = torch.zeros((0, pool.head("global").weight.shape[1]), dtype=torch.float64)
    labels = torch.as_tensor(pool.labels, device=features.device)
    membership = F.one_hot(labels, pool.num_classes).to(features.dtype)
    return {"prototype_sums": (membership.T @ features).cpu().numpy(), "label_counts": pool.label_counts}


def pseudo_classes(pool: PoolView) -> NDArray[np.int64]:
    """Return for each unlabelled sample the class whose prototype is nearest by cosine, ``(n,)``.

    A prototype is the normalised mean of all clients' normalised features of that class; a class that nobody has a
    label of has none, and no sample is of it. Equal cosines go to the lower class.
    """
    sums = np.sum([summary["prototype_sums"] for summary in pool.summaries.values()], axis=0)
    counts = np.sum([summary["label_counts"] for summary in pool.summaries.values()], axis=0)
    features = F.normalize(pool.features("global"), dim=1)
    prototypes = F.normalize(torch.as_tensor(sums, device=features.device), dim=1)
    cosines = features @ prototypes.T
    cosines[:, torch.as_tensor(counts == 0, device=features.device)] = -torch.inf
    return cosines.argmax(dim=1).cpu().numpy()

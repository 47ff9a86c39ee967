"""Measures how far several predictions of the same samples differ."""

from collections.abc import Iterable

import torch
from torch import Tensor

from kafal_pipeline.query.entropy import Entropy


def mutual_information(log_probabilities: Iterable[Tensor]) -> Tensor:
    """Return ``H(mean_t p_t) - mean_t H(p_t)`` of predictions ``(n, C)``, ``(n,)``, at least 0, in nats.

    The same as the mean Kullback-Leibler divergence of each prediction to their mean. One prediction is held at a time.
    """
    count, total, entropies = 0, None, None
    for log_p in log_probabilities:
        own = Entropy.of(log_p)
        total = log_p if total is None else total.logaddexp(log_p)
        entropies = own if entropies is None else entropies + own
        count += 1
    if total is None or entropies is None:
        raise ValueError("no predictions to compare")
    mean = total - torch.log(torch.tensor(float(count), dtype=total.dtype, device=total.device))
    return (Entropy.of(mean) - entropies / count).clamp_min(0)

"""One client's pool as a query sees it: its samples, and the outputs of models for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

QueryModel = Literal["global", "local", "downloaded", "local_only", "finetuned", "distilled"]
"""A model that a query may ask.

``global``: the aggregated one. ``local``: the client's own after its last training. ``downloaded``: the global one it
last downloaded. Trained for the query alone, on the client's labelled samples: ``local_only`` from what a federation
begins with (drawn weights, or those of ``model.pretrained``), ``finetuned`` from the global model, ``distilled`` as
``local_only``, with the global model as teacher (IFAL).
"""

Predictor = Literal[QueryModel, "ensemble_logit", "ensemble_rank"]
"""A `QueryModel`, or both ``local`` and ``global``: the mean of their probabilities (``ensemble_logit``), or the sum
over them of 1 / (20 + rank by score) (``ensemble_rank``)."""

Arrays = Mapping[str, NDArray[np.generic]]


class Outputs(NamedTuple):
    """Of one model in evaluation mode, without augmentation: logits ``(n, C)`` and penultimate features ``(n, d)``."""

    logits: Tensor
    features: Tensor


class Head(NamedTuple):
    """A model's last layer, ``logits = features @ weight.T + bias``: ``(C, d)`` and ``(C,)``."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class PoolView:
    """One client's pool, with model outputs that are computed on first use and kept.

    Samples are kept in ascending order, however they are given, so that the order of a pool can change no choice:
    randomness and ties attach to a sample's place among the sorted.

    - `samples`: indices of its unlabelled samples in the training set, int64 ``(n,)``.
    - `labelled`, `labels`: indices and labels of its labelled samples, int64 ``(m,)``.
    - `forward`, `head_of`: compute a model's `Outputs` for given samples, and return its `Head`.
    - `summaries`: what each client, this one included, reported to the server before the choice
      (`kafal_pipeline.query.base.Summarises`); empty for queries that ask for nothing.
    - `memory`: what this client's query kept at the cycle before (`Selection.memory`); empty at the first.
    - `watched`: what was watched in the last cycle's training: ``samples``, ``changes`` (see
      `kafal_pipeline.query.chase`).
    """

    client: int
    samples: NDArray[np.int64]
    labelled: NDArray[np.int64]
    labels: NDArray[np.int64]
    num_classes: int
    forward: Callable[[QueryModel, NDArray[np.int64]], Outputs]
    head_of: Callable[[QueryModel], Head]
    summaries: Mapping[int, Arrays] = field(default_factory=dict)
    memory: Arrays = field(default_factory=dict)
    watched: Arrays = field(default_factory=dict)

    _outputs: dict[tuple[str, bool], Outputs] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Sorted, and never reordered in place: outputs and labels are in their order.
        order = np.argsort(self.labelled, kind="stable")
        object.__setattr__(self, "samples", np.sort(self.samples))
        object.__setattr__(self, "labelled", self.labelled[order])
        object.__setattr__(self, "labels", self.labels[order])
        for samples in (self.samples, self.labelled):
            samples.flags.writeable = False

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def label_counts(self) -> NDArray[np.int64]:
        """Labelled samples of each class before the query, ``(C,)``."""
        return np.bincount(self.labels, minlength=self.num_classes)

    def outputs(self, model: QueryModel, *, labelled: bool = False) -> Outputs:
        """Return logits and features, float64, in the order of `samples`, or of `labelled`."""
        key = (model, labelled)
        if key not in self._outputs:
            logits, features = self.forward(model, np.array(self.labelled if labelled else self.samples))
            self._outputs[key] = Outputs(logits.double(), features.double())
        return self._outputs[key]

    def logits(self, model: QueryModel, *, labelled: bool = False) -> Tensor:
        """Return logits, ``(n, C)``."""
        return self.outputs(model, labelled=labelled).logits

    def features(self, model: QueryModel, *, labelled: bool = False) -> Tensor:
        """Return penultimate features, ``(n, d)``."""
        return self.outputs(model, labelled=labelled).features

    def log_probabilities(self, model: QueryModel | Literal["ensemble_logit"], *, labelled: bool = False) -> Tensor:
        """Return the logarithm of the softmax, or of the mean of the local and the global one, ``(n, C)``."""
        if model == "ensemble_logit":
            local, global_ = (self.log_probabilities(kind, labelled=labelled) for kind in ("local", "global"))
            return (local.logaddexp(global_)) - np.log(2.0)
        return self.logits(model, labelled=labelled).log_softmax(dim=1)

    def probabilities(self, model: QueryModel | Literal["ensemble_logit"], *, labelled: bool = False) -> Tensor:
        """Return the softmax, ``(n, C)``."""
        return self.log_probabilities(model, labelled=labelled).exp()

    def head(self, model: QueryModel) -> Head:
        """Return the last layer of a model, float64."""
        weight, bias = self.head_of(model)
        return Head(weight.detach().double(), bias.detach().double())

"""Ridge regression in closed form: one round gives what all labelled images in one place would."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.threads import single_thread
from kafal_pipeline.update.base import ClientUpdate, LocalOutcome, State, StepView, Update
from kafal_pipeline.update.least_squares import packed, solve_rows, solve_sums

logger = logging.getLogger(__name__)

Penalty = Annotated[float, Field(ge=1e-6, le=1e12)]


@dataclass(frozen=True)
class Ridge(Update):
    r"""The head in closed form, on the penultimate features of the broadcast model; all other weights stay.

    With rows f of features and a 1, and Y the labels as unit vectors, each client sends :math:`F_k^T F_k`, :math:`F_k^T
    Y_k` in float64, and the server solves

    .. math::
        W = \Big(\sum_k F_k^T F_k + \lambda P\Big)^{-1} \sum_k F_k^T Y_k

    P is the identity but for the 1, whose weight is the bias and is not shrunk. This is the solution of all labelled
    images in one place. With the model ``linear`` nothing else is left to train, so that one round is all; more give
    the same. `penalty`: :math:`\lambda`; None takes the one of least generalised cross-validation error, which the
    sums tell too.

    `min_count`: a client with fewer labelled images sends nothing, since sums of a few images show these, and its model
    stays the broadcast one. The sums of a class are a client's too: one image of a class is its row of F'Y.

    The client's own model, which queries may read, is the solution of its own labels. Outputs are regressions on 0 and
    1: their order means something, their softmax is nearly flat.

    Source: Hoerl and Kennard, "Ridge Regression", Technometrics 1970; Golub, Heath and Wahba, "Generalized
    Cross-Validation as a Method for Choosing a Good Ridge Parameter", Technometrics 1979.
    """

    penalty: Penalty | None = None
    min_count: Annotated[int, Field(ge=1, le=1_000_000)] = 5

    def takes_steps(self) -> bool:
        return False

    def client_loss(self, step: StepView) -> Tensor:
        """Return the squared error, summed over classes."""
        targets = F.one_hot(step.labels, len(step.label_counts))
        return (step.student(step.images) - targets).square().sum(dim=1).mean()

    def fit(self, student: nn.Module, batches: Iterable[StepView]) -> tuple[float, State]:
        features, labels = [], []
        for step in batches:
            features.append(student.features(step.images).double())  # type: ignore[operator]
            labels.append(step.labels)
        head: nn.Linear = student.head  # type: ignore[assignment]
        rows = torch.cat(features)
        targets = F.one_hot(torch.cat(labels), head.out_features).double()
        sums: State = {}
        if len(rows) >= self.min_count:
            with_one = F.pad(rows, (0, 1), value=1.0)
            sums = {"gram": packed(with_one.T @ with_one), "moment": with_one.T @ targets}
            weight, bias = solve_rows(rows, targets, self.penalty)
            head.weight.copy_(weight.T)
            head.bias.copy_(bias)
        else:
            weight, bias = head.weight.T.double(), head.bias.double()
        return float((rows @ weight + bias - targets).square().sum(dim=1).mean()), sums

    def finish(self, outcome: LocalOutcome) -> tuple[State, State]:
        return {}, outcome.sums

    @single_thread()  # sums round the same on machines of more cores
    def aggregate(
        self, global_state: State, server: State, updates: Sequence[ClientUpdate], clients: int
    ) -> tuple[State, State]:
        gram, moment, few = None, None, 0
        for update in updates:
            if not update.message:
                few += update.labels > 0
                continue
            gram = update.message["gram"] if gram is None else gram + update.message["gram"]
            moment = update.message["moment"] if moment is None else moment + update.message["moment"]
        model = {name: tensor.clone() for name, tensor in global_state.items()}
        if few and gram is None:
            raise UserError(
                f"update.min_count: found {self.min_count}, and all {few} clients that take part have fewer labelled "
                "images, so there is nothing to solve. Raise budget.initial, or lower update.min_count."
            )
        if few:
            logger.warning(
                "ridge: %d of %d clients have fewer than update.min_count=%d labelled images and send nothing.",
                *(few, len(updates), self.min_count),
            )
        if gram is not None and moment is not None:
            weight, bias = solve_sums(gram, moment, self.penalty)
            for name, tensor in (("head.weight", weight.T), ("head.bias", bias)):
                model[name] = tensor.to(model[name].dtype).contiguous()
        return model, server

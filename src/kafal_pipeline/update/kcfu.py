"""KCFU, Knowledge-Compensatory Federated Update: balanced training on own classes, others from a teacher."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.update.base import StepView, Update
from kafal_pipeline.update.losses import CROSS_ENTROPY, LabelledLoss, Loss


def class_weight(label_counts: Tensor) -> Tensor:
    """Inverse counts normalised to sum 1, 0 for classes without labels; float64 ``(C,)``.

    >>> class_weight(torch.tensor([1, 0, 3])).tolist()
    [0.75, 0.0, 0.25]
    """
    counts = label_counts.double()
    # Not `torch.where`: a number among its arguments may be copied to a GPU, which cannot be recorded.
    inverse = (1.0 / counts).masked_fill(counts == 0, 0.0)
    return inverse / inverse.sum()


def compensation_weight(class_weight: Tensor, label_logits: Tensor, beta: Tensor, partner: Tensor) -> Tensor:
    """Weight of each mixed sample, ``(n,)``: ``beta_i w[yhat_i] + (1 - beta_i) w[yhat_partner(i)]``.

    `class_weight`: w, ``(C,)``. yhat is the arg max of `label_logits`, the teacher's, ``(n, C)``. `beta`, `partner`:
    mixing share and index of the sample mixed in, ``(n,)``.
    """
    weight = class_weight[label_logits.argmax(dim=1)]
    return beta * weight + (1 - beta) * weight[partner]


def compensatory_loss(
    student_logits: Tensor, teacher_logits: Tensor, gamma: Tensor, class_reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Mean over samples of ``gamma_i KL(softmax(teacher_i) || softmax(student_i))``; logits ``(n, C)``, gamma ``(n,)``.

    No gradient flows into the teacher's logits. `class_reduction`: ``mean`` divides the divergence by C (published
    code), ``sum`` is the divergence itself.
    """
    log_teacher = teacher_logits.detach().log_softmax(dim=1)
    divergence = F.kl_div(student_logits.log_softmax(dim=1), log_teacher, reduction="none", log_target=True).sum(dim=1)
    if class_reduction == "mean":
        divergence = divergence / student_logits.shape[1]
    return (gamma.to(divergence.dtype) * divergence).mean()


BALANCED = LabelledLoss("balanced_softmax")


@dataclass(frozen=True)
class KCFU(Update):
    """Balanced softmax on labelled samples plus class-weighted distillation of mixed unlabelled ones.

    ``L = L_bal + L_comp``; L_comp has weight 0 in round 0 of a cycle, when the teacher is untrained. Unlabelled images
    are mixed, ``m_i = b_i u_i + (1 - b_i) u_partner(i)`` with b ~ Beta(2, 2), and the student sees them in a forward of
    its own, so that its batch-norm statistics follow both kinds of batches, in round 0 too.

    - `balanced`, `compensatory`: each half can be switched off; without `balanced` the labelled loss is the plain
      cross-entropy.
    - `partner`: ``one``: one random sample is mixed into the whole batch (published code); ``permutation``: each has
      its own.
    - `weigh_by`: the teacher's classes that weigh a sample are those of the ``mixed`` (published code) or ``original``
      images.
    - `teacher_bn`: the teacher normalises by ``batch`` (published code) or ``running`` statistics.
    - `unlabelled_pool`: the pool of the trial's start, never updated (``initial``, published code), or the ``current``
      one.
    - `class_reduction`: see `compensatory_loss`.
    - `absent_class_weight`: ``zero``: classes without labels weigh nothing, as published; ``smoothed``: all counts plus
      `smoothing`, so that the weakest classes get compensation at all.
    - `loss`: a labelled loss in the place of L_bal; None leaves it to `balanced`.

    Source: Cao et al., "Knowledge-Aware Federated Active Learning with Non-IID Data", ICCV 2023. The defaults are those
    of its public code; the name ``kcfu_paper`` sets them as in Algorithm 1.
    """

    balanced: bool = True
    compensatory: bool = True
    partner: Literal["one", "permutation"] = "one"
    weigh_by: Literal["mixed", "original"] = "mixed"
    teacher_bn: Literal["batch", "running"] = "batch"
    unlabelled_pool: Literal["initial", "current"] = "initial"
    class_reduction: Literal["mean", "sum"] = "mean"
    absent_class_weight: Literal["zero", "smoothed"] = "zero"
    smoothing: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    loss: Loss | None = None

    def unlabelled_source(self) -> Literal["none", "initial", "current"]:
        return self.unlabelled_pool if self.compensatory else "none"

    def uses_teacher(self, round_: int) -> bool:
        return self.compensatory and round_ > 0

    def phase(self, round_: int) -> Hashable:
        return self.uses_teacher(round_), self._labelled_loss.phase(round_)

    def client_loss(self, step: StepView) -> Tensor:
        first, *rest = self.loss_terms(step)
        return sum(rest, first)

    def loss_terms(self, step: StepView) -> Iterator[Tensor]:
        yield self._labelled_loss(step.student(step.images), step.labels, step.label_counts, step.round)
        if not self.compensatory or step.unlabelled is None:
            return
        beta, partner = self._mixing(step.unlabelled, step.generator)
        share = beta.view(-1, 1, 1, 1)
        mixed = share * step.unlabelled + (1 - share) * step.unlabelled[partner]
        if not self.uses_teacher(step.round) or step.teacher is None:
            with torch.no_grad():
                step.student(mixed)  # its weight is 0, but batch norm sees it, as in every other round
            return
        with torch.no_grad():
            step.teacher.train(self.teacher_bn == "batch")
            teacher_logits = step.teacher(mixed)
            label_logits = teacher_logits if self.weigh_by == "mixed" else step.teacher(step.unlabelled)
            gamma = compensation_weight(self._class_weight(step.label_counts), label_logits, beta, partner)
        yield compensatory_loss(step.student(mixed), teacher_logits, gamma, self.class_reduction)

    @property
    def _labelled_loss(self) -> LabelledLoss:
        return self.loss or (BALANCED if self.balanced else CROSS_ENTROPY)

    def _class_weight(self, label_counts: Tensor) -> Tensor:
        return class_weight(label_counts + self.smoothing if self.absent_class_weight == "smoothed" else label_counts)

    def _mixing(self, unlabelled: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the mixing shares, float32 ``(n,)``, and partners, int64 ``(n,)``."""
        size, device = len(unlabelled), unlabelled.device
        # The median of three uniform numbers is Beta(2, 2); torch's own beta distribution takes no generator, and its
        # median has no deterministic form on a GPU. As many numbers for either kind of partner: it changes no share.
        first, second, third, order = torch.rand((4, size), generator=generator, device=device)
        beta = torch.maximum(torch.minimum(first, second), torch.minimum(torch.maximum(first, second), third))
        if self.partner == "one":
            partner = (order[:1] * size).long().clamp(max=size - 1).expand(size)
        else:
            partner = order.argsort()
        return beta, partner

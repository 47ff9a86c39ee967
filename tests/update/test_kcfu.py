from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kafal_pipeline.update.base import StepView
from kafal_pipeline.update.kcfu import KCFU, class_weight, compensation_weight, compensatory_loss
from kafal_pipeline.update.losses import balanced_softmax

CASES = ["all_classes", "absent_classes", "single_class", "extreme_logits", "hundred_classes"]
PRECISIONS = [(torch.float64, 1e-9), (torch.float32, 1e-4)]


def tensors(data: dict[str, np.ndarray], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    values = {key: torch.tensor(value) for key, value in data.items()}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in values.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_golden_file(kcfu_golden, case, dtype, tolerance):
    data, expected = tensors(kcfu_golden[case], dtype), kcfu_golden[case]
    logits = data["labelled_logits"].requires_grad_()
    student = data["student_mixed_logits"].requires_grad_()

    def close(actual, key):
        absolute = tolerance if dtype == torch.float64 else 1e-30
        np.testing.assert_allclose(actual.detach().numpy(), expected[key], rtol=tolerance, atol=absolute, err_msg=key)

    balanced = balanced_softmax(logits, data["labels"], data["label_counts"])
    close(balanced, "balanced_loss")
    weight = class_weight(data["label_counts"])
    close(weight, "class_weight")
    variants = {
        "code": (data["teacher_mixed_logits"], data["partner_one"], "mean"),
        "paper": (data["teacher_original_logits"], data["partner_permutation"], "sum"),
    }
    for variant, (label_logits, partner, reduction) in variants.items():
        gamma = compensation_weight(weight, label_logits, data["beta"], partner)
        close(gamma, f"{variant}_gamma")
        loss = compensatory_loss(student, data["teacher_mixed_logits"], gamma, class_reduction=reduction)
        close(loss, f"{variant}_compensatory_loss")
        (gradient,) = torch.autograd.grad(loss, student, retain_graph=True)
        assert torch.isfinite(gradient).all()
    (gradient,) = torch.autograd.grad(balanced, logits)
    assert torch.isfinite(gradient).all()
    absent = data["label_counts"] == 0
    assert (gradient[:, absent] == 0).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 9))
def test_balanced_softmax_is_the_formula(seed, classes, size):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=size)
    counts = np.bincount(np.append(labels, labels[0]), minlength=classes)
    logits = rng.normal(size=(size, classes)) * 5
    losses = []
    for z, y in zip(logits, labels, strict=True):
        mass = [counts[c] * np.exp(z[c]) for c in range(classes)]
        losses.append(-np.log(mass[y] / sum(mass)))
    actual = balanced_softmax(torch.tensor(logits), torch.tensor(labels), torch.tensor(counts))
    assert float(actual) == pytest.approx(np.mean(losses), rel=1e-10)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=8).filter(any))
def test_class_weights_sum_to_one_and_favour_rare_classes(counts):
    weight = class_weight(torch.tensor(counts)).numpy()
    assert weight.sum() == pytest.approx(1.0)
    for a, wa in zip(counts, weight, strict=True):
        assert (wa == 0) == (a == 0)
        for b, wb in zip(counts, weight, strict=True):
            assert not (0 < a < b) or wa > wb


def test_gradients_agree_with_finite_differences(kcfu_golden):
    data = tensors(kcfu_golden["absent_classes"], torch.float64)
    gamma = compensation_weight(
        class_weight(data["label_counts"]), data["teacher_mixed_logits"], data["beta"], data["partner_one"]
    )
    student = data["student_mixed_logits"][:5].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: compensatory_loss(z, data["teacher_mixed_logits"][:5], gamma[:5]), (student,)
    )
    logits = data["labelled_logits"][:5].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: balanced_softmax(z, data["labels"][:5], data["label_counts"]), (logits,))


class Recorder(nn.Module):
    """A tiny network that remembers in which mode and with which images it was called."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(1)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.normal_(generator=torch.Generator().manual_seed(seed))
        self.calls: list[tuple[bool, bool, torch.Tensor]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append((self.training, torch.is_grad_enabled(), images))
        return self.head(self.bn(images).flatten(1))


@pytest.fixture
def make_step():
    def make(round_: int = 1, unlabelled: int | None = 5, label_counts=(4, 2, 0)) -> StepView:
        generator = torch.Generator().manual_seed(7)
        student, teacher = Recorder(0).train(), Recorder(1)
        images = torch.rand(6, 1, 2, 2, generator=generator)
        other = None if unlabelled is None else torch.rand(unlabelled, 1, 2, 2, generator=generator)
        labels = torch.tensor([0, 1, 0, 0, 1, 0])
        return StepView(student, teacher, images, labels, other, torch.tensor(label_counts), round_, generator)

    return make


def test_student_sees_labelled_and_mixed_images_in_two_forwards(make_step):
    step = make_step()
    KCFU().client_loss(step)
    assert [len(images) for _, _, images in step.student.calls] == [6, 5]
    assert step.student.calls[0][2] is step.images
    assert all(training and grad for training, grad, _ in step.student.calls)
    assert not torch.equal(step.student.calls[1][2], step.unlabelled)


def test_round_zero_has_no_compensation_but_moves_batch_norm(make_step):
    step, plain = make_step(round_=0), make_step(round_=0, unlabelled=None)
    loss, expected = KCFU().client_loss(step), KCFU().client_loss(plain)
    assert torch.equal(loss, expected)
    assert not step.teacher.calls
    assert not torch.equal(step.student.bn.running_mean, plain.student.bn.running_mean)
    assert int(step.student.bn.num_batches_tracked) == 2


def test_an_empty_pool_leaves_the_labelled_loss(make_step):
    with_, without = make_step(unlabelled=5), make_step(unlabelled=None)
    assert torch.isfinite(KCFU().client_loss(without))
    assert float(KCFU().client_loss(without)) < float(KCFU().client_loss(with_))


def test_teacher_gets_no_gradient_and_the_batch_norm_asked_for(make_step):
    for mode, training in (("batch", True), ("running", False)):
        step = make_step()
        KCFU(teacher_bn=mode).client_loss(step).backward()
        assert [call[:2] for call in step.teacher.calls] == [(training, False)]
        assert all(parameter.grad is None for parameter in step.teacher.parameters())


def test_weights_come_from_mixed_or_original_images(make_step):
    mixed, original = make_step(), make_step()
    KCFU(weigh_by="mixed").client_loss(mixed)
    KCFU(weigh_by="original").client_loss(original)
    assert len(mixed.teacher.calls) == 1
    assert len(original.teacher.calls) == 2
    assert original.teacher.calls[1][2] is original.unlabelled


def test_loss_is_the_formula_for_every_switch(make_step):
    """Recompute the loss from the recorded images, so that each switch is seen to mean what it says."""
    for options in (
        {},
        {"class_reduction": "sum"},
        {"absent_class_weight": "smoothed", "smoothing": 0.5},
        {"partner": "permutation", "weigh_by": "original", "teacher_bn": "running"},
    ):
        update, step, again = KCFU(**options), make_step(), make_step()
        loss = update.client_loss(step)
        beta, partner = update._mixing(again.unlabelled, again.generator)
        mixed = torch.stack(
            [
                b * again.unlabelled[i] + (1 - b) * again.unlabelled[j]
                for i, (b, j) in enumerate(zip(beta, partner, strict=True))
            ]
        )
        torch.testing.assert_close(step.student.calls[1][2], mixed)
        again.teacher.train(update.teacher_bn == "batch")
        teacher = again.teacher(mixed).softmax(1)
        classes = (again.teacher(again.unlabelled) if update.weigh_by == "original" else teacher).argmax(1)
        counts = again.label_counts + (update.smoothing if update.absent_class_weight == "smoothed" else 0)
        weight = [1 / float(n) if n else 0.0 for n in counts]
        weight = torch.tensor(weight) / sum(weight)
        logits = again.student(again.images)
        student = again.student(mixed).softmax(1)
        divergence = (teacher * (teacher / student).log()).sum(1) / (1 if update.class_reduction == "sum" else 3)
        gamma = beta * weight[classes] + (1 - beta) * weight[classes[partner]]
        expected = balanced_softmax(logits, again.labels, again.label_counts) + (gamma * divergence).mean()
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_partners(make_step):
    step = make_step(unlabelled=50)
    _, one = KCFU(partner="one")._mixing(step.unlabelled, step.generator)
    _, many = KCFU(partner="permutation")._mixing(step.unlabelled, step.generator)
    assert len(set(one.tolist())) == 1
    assert sorted(many.tolist()) == list(range(50))


def test_mixing_shares_follow_beta_2_2():
    from scipy import stats

    beta, _ = KCFU()._mixing(torch.zeros(20_000, 1, 1, 1), torch.Generator().manual_seed(0))
    assert stats.kstest(beta.numpy(), stats.beta(2, 2).cdf).pvalue > 0.001


def test_each_half_alone(make_step):
    step = make_step()
    loss = KCFU(compensatory=False).client_loss(step)
    again = make_step()
    assert torch.equal(loss, balanced_softmax(again.student(again.images), again.labels, again.label_counts))
    assert len(step.student.calls) == 1
    assert KCFU(compensatory=False).unlabelled_source() == "none"

    step = make_step(round_=0)
    loss = KCFU(balanced=False).client_loss(step)
    again = make_step()
    assert torch.equal(loss, nn.functional.cross_entropy(again.student(again.images), again.labels))


def test_named_presets_are_the_two_columns_of_the_table():
    from kafal_pipeline.common.registry import create
    from kafal_pipeline.update import UPDATES

    code, paper = (create("update", name, {}, UPDATES) for name in ("kcfu", "kcfu_paper"))
    switches = ("partner", "weigh_by", "teacher_bn", "unlabelled_pool", "class_reduction")
    assert [getattr(code, name) for name in switches] == ["one", "mixed", "batch", "initial", "mean"]
    assert [getattr(paper, name) for name in switches] == ["permutation", "original", "running", "current", "sum"]

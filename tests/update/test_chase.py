"""CHASe's alignment and each of its options, against the formula written out sample by sample in double precision."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from kafal_pipeline.common.registry import create
from kafal_pipeline.models.factory import build
from kafal_pipeline.update import UPDATES
from kafal_pipeline.update.base import StepView

OPTIONS = [
    {},
    {"weight": 0.1},
    {"weight": 3.0},
    {"temperature": 0.07},
    {"temperature": 2.0},
    {"representation": "features"},
    {"weight": 0.3, "temperature": 1.7, "representation": "features"},
    {"loss": "focal", "weight": 0.5},
]


def make(**options):
    return create("update", "chase_alignment", options, UPDATES)


def network(seed):
    """A small network whose running statistics are not those of its batches."""
    generator = torch.Generator().manual_seed(seed)
    made = build("resnet8", in_channels=1, num_classes=3, image_size=(6, 6), generator=generator).double()
    for name, tensor in made.state_dict().items():
        if "running" in name:
            low, high = (0.5, 2.0) if "var" in name else (-0.2, 0.2)
            tensor.uniform_(low, high, generator=generator)
    return made


def make_step(**changes):
    generator = torch.Generator().manual_seed(0)
    images, unlabelled = (torch.randn(n, 1, 6, 6, generator=generator).double() for n in (6, 5))
    student, teacher, previous = (network(seed) for seed in (1, 2, 3))
    step = {
        "student": student.train(), "teacher": teacher.train(), "images": images,
        "labels": torch.tensor([0, 1, 0, 0, 1, 0]), "unlabelled": unlabelled, "label_counts": torch.tensor([4, 2, 0]),
        "round": 2, "generator": torch.Generator(), "previous": previous.train(),
    }  # fmt: skip
    return StepView(**{**step, **changes})


def labelled_loss(step, loss):
    gamma = 2.0 if loss == "focal" else 0.0
    chosen = step.student(step.images).log_softmax(1)[torch.arange(6), step.labels]
    return -((1 - chosen.exp()) ** gamma * chosen).mean()


def by_hand(step, weight=1.0, temperature=0.5, representation="logits", loss="ce"):
    """Return the paper's loss; what the networks represent is read off as their documentation says."""
    total, alignments = labelled_loss(step, loss), []

    def represent(model):
        features = model.features(step.unlabelled)
        return features if representation == "features" else model.head(features)

    student = represent(step.student)
    with torch.no_grad():
        teacher, previous = represent(step.teacher.eval()), represent(step.previous.eval())
    for s, t, p in zip(student, teacher, previous, strict=True):
        towards, away = ((s @ other) / (s.norm() * other.norm()) / temperature for other in (t, p))
        alignments.append(-torch.log(towards.exp() / (towards.exp() + away.exp())))
    return total + weight * sum(alignments) / len(alignments)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_loss_and_gradients_are_those_of_the_formula(options):
    ours, theirs = make_step(), make_step()
    loss, expected = make(**options).client_loss(ours), by_hand(theirs, **options)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    pairs = zip(
        torch.autograd.grad(loss, list(ours.student.parameters()), materialize_grads=True),
        torch.autograd.grad(expected, list(theirs.student.parameters()), materialize_grads=True),
        strict=True,
    )
    for gradient, other in pairs:
        torch.testing.assert_close(gradient, other, rtol=1e-7, atol=1e-10)
    for name, tensor in theirs.student.state_dict().items():  # the same forwards in training mode, in the same order
        torch.testing.assert_close(ours.student.state_dict()[name], tensor)


def test_every_option_changes_the_loss():
    losses = [float(make(**options).client_loss(make_step()).detach()) for options in OPTIONS]
    assert all(not math.isclose(a, b, rel_tol=1e-6) for i, a in enumerate(losses) for b in losses[:i])


@pytest.mark.parametrize("missing", ["unlabelled", "teacher", "previous"])
def test_without_anything_to_align_with_it_is_the_labelled_loss(missing):
    step = make_step(**{missing: None})
    expected = labelled_loss(copy.deepcopy(step), "ce")
    assert float(make().client_loss(step).detach()) == pytest.approx(float(expected.detach()), rel=1e-12)


def test_neither_the_teacher_nor_the_previous_model_changes():
    step = make_step()
    before = [copy.deepcopy(model.state_dict()) for model in (step.teacher, step.previous)]
    make().client_loss(step).backward()
    for model, state in zip((step.teacher, step.previous), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_what_it_asks_for():
    update = make()
    assert update.unlabelled_source() == "current"
    assert [update.uses_teacher(round_) for round_ in range(3)] == [False, True, True]
    assert update.uses_previous()


@pytest.mark.parametrize(
    "options", [{"weight": 0.1}, {"temperature": 2.0}, {"representation": "features"}, {"loss": "focal"}], ids=str
)
def test_options_reach_training(make_pools, train, options):
    """From the parameters on; in the first round there is no last model, hence no alignment."""
    pools, models = make_pools([6, 4]), []
    for update in ({"name": "chase_alignment"}, {"name": "chase_alignment", **options}):
        rounds = []
        train(pools, update, on_round=lambda state, rounds=rounds: rounds.append(state.global_state["head.weight"]))
        models.append(rounds)
    (first, last), (other_first, other_last) = models
    assert torch.equal(first, other_first) == ("loss" not in options)
    assert not torch.equal(last, other_last)

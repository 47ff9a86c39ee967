"""Every local loss against its formula, sample by sample, and its gradient against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import create
from kafal_pipeline.update import UPDATES
from kafal_pipeline.update.losses import LOSSES, LabelledLoss, evidential

CASES = [
    ("ce", {}),
    ("balanced_softmax", {}),
    ("logit_adjust", {}),
    ("logit_adjust", {"tau": 0.5, "smoothing": 0.1}),
    ("focal", {}),
    ("focal", {"gamma": 0.5}),
    ("edl", {}),
    ("edl", {"weighted": False, "regularisation": 0.3}),
    ("edl", {"annealing": 0}),
]


def batch(seed, size=6, classes=4):
    """Logits, labels and the counts of a client that lacks a class; no logit where relu has its kink."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes - 1, size=size)
    counts = np.bincount(np.concatenate([labels, labels, [0]]), minlength=classes)
    logits = rng.normal(size=(size, classes)) * 2
    logits[np.abs(logits) < 0.01] = 0.1
    return logits, labels, counts


def dirichlet_kl(a):
    """KL(Dir(a) || Dir(1)) in closed form."""
    total = a.sum()
    log_mean = special.digamma(a) - special.digamma(total)
    return special.gammaln(total) - special.gammaln(a).sum() + ((a - 1) * log_mean).sum() - special.gammaln(len(a))


def plain(name, z, y, counts, round_, options):
    """One sample's loss, in numpy."""
    probabilities = np.exp(z) / np.exp(z).sum()
    if name == "ce":
        return -np.log(probabilities[y])
    if name == "balanced_softmax":
        mass = counts * np.exp(z)
        return -np.log(mass[y] / mass.sum())
    if name == "logit_adjust":
        prior = counts + options.get("smoothing", 1.0)
        mass = (prior / prior.sum()) ** options.get("tau", 1.0) * np.exp(z)
        return -np.log(mass[y] / mass.sum())
    if name == "focal":
        return -((1 - probabilities[y]) ** options.get("gamma", 2.0)) * np.log(probabilities[y])
    a = 1 + np.maximum(z, 0)
    weight = 2 - counts[y] / counts.sum() if options.get("weighted", True) else 1.0
    wrong = a.copy()
    wrong[y] = 1.0
    annealing = options.get("annealing", 10)
    strength = min(1.0, round_ / annealing) if annealing else 1.0
    regulariser = strength * dirichlet_kl(wrong) - len(z) / a.sum() * z[y]
    risk = weight * (special.digamma(a.sum()) - special.digamma(a[y]))
    return risk + options.get("regularisation", 0.01) * regulariser


@pytest.mark.parametrize(("name", "options"), CASES)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), round_=st.integers(0, 15))
def test_loss_is_the_formula(name, options, seed, round_):
    logits, labels, counts = batch(seed)
    loss = LabelledLoss.of({"name": name, **options})
    actual = loss(torch.tensor(logits), torch.tensor(labels), torch.tensor(counts), round_)
    expected = np.mean([plain(name, z, y, counts, round_, options) for z, y in zip(logits, labels, strict=True)])
    assert float(actual) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradient_agrees_with_finite_differences(name, options):
    # The last term of edl holds back a gradient on purpose: without it here, and by itself below.
    options = {**options, "regularisation": 0.0} if name == "edl" else options
    logits, labels, counts = batch(3)
    loss = LabelledLoss.of({"name": name, **options})
    z = torch.tensor(logits, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: loss(z, torch.tensor(labels), torch.tensor(counts), 4), (z,))


def test_gradient_of_the_evidential_regulariser():
    logits, labels, counts = (torch.tensor(item) for item in batch(3))
    z = logits.clone().requires_grad_()
    (with_,) = torch.autograd.grad(evidential(z, labels, counts, 5, regularisation=1.0), z)
    (without,) = torch.autograd.grad(evidential(z, labels, counts, 5, regularisation=0.0), z)
    wrong = torch.where(torch.nn.functional.one_hot(labels, 4) == 1, 1.0, 1 + z.relu())
    uniform = torch.distributions.Dirichlet(torch.ones(4, dtype=torch.float64))
    divergence = torch.distributions.kl_divergence(torch.distributions.Dirichlet(wrong), uniform)
    (expected,) = torch.autograd.grad(0.5 * divergence.mean(), z)
    total = (1 + logits.relu()).sum(1)
    for row, label in enumerate(labels):
        expected[row, label] -= 4 / total[row] / len(labels)
    torch.testing.assert_close(with_ - without, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_finite_with_extreme_logits_and_absent_classes(name):
    logits = torch.tensor([[300.0, -300.0, 0.0], [-300.0, 300.0, 0.0], [0.0, 0.0, 300.0]], requires_grad=True)
    loss = LabelledLoss(name)(logits, torch.tensor([0, 0, 1]), torch.tensor([2, 1, 0]), 1)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_limits_are_the_cross_entropy():
    logits, labels, counts = (torch.tensor(item) for item in batch(1))
    expected = LabelledLoss("ce")(logits, labels, counts, 0)
    for spec in ({"name": "focal", "gamma": 0}, {"name": "logit_adjust", "tau": 0}):
        torch.testing.assert_close(LabelledLoss.of(spec)(logits, labels, counts, 0), expected)


@pytest.mark.parametrize("update", sorted(set(UPDATES) - {"ridge"}))  # whose loss is the squared error
@pytest.mark.parametrize("loss", LOSSES)
def test_every_update_takes_every_loss(update, loss):
    assert create("update", update, {"loss": loss}, UPDATES).loss.name == loss


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("focall", "update.loss: found 'focall'. Did you mean 'focal'"),
        ({"gamma": 2}, "update.loss: found None"),
        (3, "update.loss: found None|update.loss: found 3"),
        ({"name": "focal", "gama": 2}, "update.loss.gama: unknown option. Did you mean 'gamma'"),
        ({"name": "focal", "gamma": -1}, "update.loss.gamma: found -1"),
        ({"name": "logit_adjust", "smoothing": 0}, "update.loss.smoothing: found 0"),
        ({"name": "ce", "tau": 1}, "ce has no options"),
    ],
)
def test_mistakes_are_answered(loss, message):
    with pytest.raises(UserError, match=message):
        create("update", "fedprox", {"loss": loss}, UPDATES)

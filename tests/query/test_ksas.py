from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kafal_pipeline.query.ksas import KSAS, discrepancy

CASES = ["all_classes", "absent_classes", "single_class", "extreme_logits", "hundred_classes"]


def brute_force(local: np.ndarray, global_: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """One sample and one class after another, in plain Python and long doubles, straight from the formula."""
    scores = []
    present = [y for y in range(len(counts)) if counts[y] > 0]
    for zl, zg in zip(local.astype(np.longdouble), global_.astype(np.longdouble), strict=True):
        weigh = []
        for z in (zl, zg):
            shift = max(z[y] for y in present)
            mass = {y: counts[y] * np.exp(z[y] - shift) for y in present}
            total = sum(mass.values())
            log = {y: np.log(np.longdouble(counts[y])) + (z[y] - shift) - np.log(total) for y in present}
            weigh.append(({y: mass[y] / total for y in present}, log))
        (p, log_p), (q, log_q) = weigh
        kl_pq = sum(p[y] * (log_p[y] - log_q[y]) for y in present)
        kl_qp = sum(q[y] * (log_q[y] - log_p[y]) for y in present)
        scores.append(float((kl_pq + kl_qp) / 2))
    return np.array(scores)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_golden_file_in_float64(ksas_golden, case):
    data = ksas_golden[case]
    local, global_ = (torch.tensor(data[f"{kind}_logits"]).double() for kind in ("local", "global"))
    score = discrepancy(local, global_, torch.tensor(data["label_counts"]))
    np.testing.assert_allclose(score.numpy(), data["score"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_golden_file_in_float32(ksas_golden, case):
    data = ksas_golden[case]
    local, global_ = (torch.tensor(data[f"{kind}_logits"]) for kind in ("local", "global"))
    score = discrepancy(local, global_, torch.tensor(data["label_counts"]))
    assert score.dtype == torch.float32
    np.testing.assert_allclose(score.numpy(), data["score"], rtol=1e-4, atol=1e-30)


logits = st.lists(st.floats(-300, 300, width=32), min_size=12, max_size=12).map(
    lambda values: np.array(values).reshape(3, 4)
)
counts = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any).map(np.array)


@settings(deadline=None, max_examples=80)
@given(logits, logits, counts)
def test_agrees_with_brute_force_is_symmetric_and_finite(local, global_, label_counts):
    args = torch.tensor(local), torch.tensor(global_), torch.tensor(label_counts)
    score = discrepancy(*args).numpy()
    assert np.isfinite(score).all()
    assert (score >= -1e-12).all()
    np.testing.assert_allclose(score, brute_force(local, global_, label_counts), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(score, discrepancy(args[1], args[0], args[2]).numpy(), rtol=1e-12, atol=1e-14)


@settings(deadline=None, max_examples=30)
@given(logits, logits, counts, st.floats(-50, 50))
def test_ignores_absent_classes_and_shifts(local, global_, label_counts, shift):
    label_counts = label_counts.copy()
    label_counts[2] = 0
    label_counts[0] += 1
    score = discrepancy(torch.tensor(local), torch.tensor(global_), torch.tensor(label_counts))
    changed = local + shift
    changed[:, 2] = 1e6
    moved = discrepancy(torch.tensor(changed), torch.tensor(global_), torch.tensor(label_counts))
    np.testing.assert_allclose(moved.numpy(), score.numpy(), rtol=1e-6, atol=1e-9)


def test_single_class_is_exactly_zero():
    score = discrepancy(torch.randn(5, 3), torch.randn(5, 3), torch.tensor([0, 7, 0]))
    assert score.tolist() == [0.0] * 5


def test_selects_the_largest_scores_against_the_model_asked_for(make_pool):
    pool = make_pool(samples=20, classes=4, seed=3)
    counts = torch.tensor(pool.label_counts)
    for option, kind in (("final", "global"), ("downloaded", "downloaded")):
        chosen = KSAS(global_model=option).select(pool, 6, np.random.default_rng(0))
        score = discrepancy(pool.logits("local").double(), pool.logits(kind).double(), counts).numpy()
        expected = pool.samples[np.argsort(-score)[:6]]
        assert chosen.samples.tolist() == expected.tolist()


@pytest.mark.parametrize("smoothing", [0.5, 3.0])
def test_smoothing_is_added_to_every_count(make_pool, smoothing):
    pool = make_pool(samples=30, classes=4, seed=1)
    local, global_ = (pool.logits(kind).numpy() for kind in ("local", "global"))
    scores = KSAS(prior_smoothing=smoothing).scores(pool, np.random.default_rng(0))
    np.testing.assert_allclose(scores, brute_force(local, global_, pool.label_counts + smoothing), rtol=1e-9)


def test_smoothing_lets_absent_classes_count(make_pool):
    pool = make_pool(samples=30, classes=4, seed=1, label_classes=(1,))
    smoothed = KSAS(prior_smoothing=1.0).select(pool, 30, np.random.default_rng(0))
    plain = KSAS().select(pool, 30, np.random.default_rng(0))
    assert (plain.scores == 0).all()
    assert (smoothed.scores > 0).all()

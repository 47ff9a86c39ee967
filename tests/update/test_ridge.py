"""Ridge: the pooled solution from sums, what clients send, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Pooled
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import create
from kafal_pipeline.federation.workers import worker as worker_module
from kafal_pipeline.federation.workers.worker import Worker
from kafal_pipeline.models.factory import build
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.update import UPDATES
from kafal_pipeline.update.base import ClientUpdate
from kafal_pipeline.update.least_squares import least_gcv, packed, solve_rows, solve_sums, unpacked
from kafal_pipeline.update.ridge import Ridge

SHAPES = [(200, 12), (30, 45), (46, 45), (6, 3)]  # rows and features


def data(count, width, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(3, rng.uniform(0.1, 4, width), (count, width))
    return torch.tensor(rows), torch.tensor(rng.integers(4, size=count))


def sums(rows, labels):
    """What a client sends, written out."""
    with_one = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)
    return {"gram": packed(with_one.T @ with_one), "moment": with_one.T @ F.one_hot(labels, 4).double()}


def sent(message, labels):
    return ClientUpdate({}, float(labels), 0.0, frozenset(), message)


@pytest.mark.parametrize("penalty", [0.01, 3.0, 1e5])
@pytest.mark.parametrize(("count", "width"), SHAPES)
def test_the_server_s_solution_is_that_of_all_rows_in_one_place(count, width, penalty):
    rows, labels = data(count, width)
    parts = np.array_split(np.arange(count), 3)
    updates = [sent(sums(rows[part], labels[part]), len(part)) for part in parts]
    start = {"head.weight": torch.zeros(4, width).double(), "head.bias": torch.zeros(4).double(), "body": torch.ones(2)}
    model, server = Ridge(penalty=penalty).aggregate(start, {"kept": torch.ones(1)}, updates, 7)
    pooled = Pooled(alpha=penalty, solver="svd").fit(rows.numpy(), F.one_hot(labels, 4).numpy())
    np.testing.assert_allclose(model["head.weight"].numpy(), pooled.coef_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(model["head.bias"].numpy(), pooled.intercept_, rtol=0, atol=1e-9)
    assert torch.equal(model["body"], start["body"])
    assert server.keys() == {"kept"}


@pytest.mark.parametrize("penalty", [0.5, None])
@pytest.mark.parametrize(("count", "width"), SHAPES)
def test_a_client_s_own_solution_from_its_rows_is_that_of_its_sums(count, width, penalty):
    rows, labels = data(count, width)
    message = sums(rows, labels)
    ours, other = solve_rows(rows, F.one_hot(labels, 4).double(), penalty), solve_sums(*message.values(), penalty)
    for first, second in zip(ours, other, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("count", "width"), SHAPES)
def test_the_penalty_chosen_has_the_least_generalised_error(count, width):
    """By the hat matrix of each penalty, written out."""
    rows, labels = data(count, width)
    centred = rows - rows.mean(dim=0)
    targets = F.one_hot(labels, 4).double()
    targets = targets - targets.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    kept = values > 1e-9
    chosen = least_gcv(values, (vectors.T @ targets).square().sum(dim=1), float(targets.square().sum()), count)

    def error(penalty):
        inverse = torch.linalg.inv(centred @ centred.T + penalty * torch.eye(count))
        hat = centred @ centred.T @ inverse
        return float((targets - hat @ targets).square().sum() / (count - 1 - hat.trace()) ** 2)

    mean = float(values[kept].mean())
    assert error(chosen) <= 1.0001 * min(error(mean * 10**power) for power in np.arange(-4, 3.1, 0.25))


def test_rows_that_are_all_equal_give_the_classes_shares():
    rows, labels = torch.ones(8, 3).double(), torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
    for weight, bias in (
        solve_rows(rows, F.one_hot(labels, 4).double(), None),
        solve_sums(*sums(rows, labels).values(), None),
    ):
        assert not weight.any()
        np.testing.assert_allclose(bias, [3 / 8, 2 / 8, 2 / 8, 1 / 8])


def test_half_of_a_symmetric_matrix_is_sent():
    rows, labels = data(9, 5)
    gram = sums(rows, labels)["gram"]
    assert gram.shape == (6 * 7 / 2,)
    assert float(unpacked(gram)[-1, -1]) == 9
    assert torch.equal(unpacked(gram), unpacked(gram).T)


def test_too_small_a_penalty_is_refused_rather_than_rounded():
    rows, labels = data(100, 2)
    with pytest.raises(UserError, match="update.penalty: found 1e-06, which is too small"):
        solve_sums(*sums(1e9 * rows.repeat(1, 30), labels).values(), 1e-6)


@pytest.fixture
def in_double(monkeypatch):
    """Features and networks in double precision."""
    original = Pixels._normalise
    monkeypatch.setattr(Pixels, "_normalise", lambda self, images: original(self, images).double())
    monkeypatch.setattr(worker_module, "build", lambda *args, **options: build(*args, **options).double())


def pooled(images, pools, penalty):
    labelled = np.concatenate([pool.labelled for pool in pools.values()])
    pixels = Pixels(images.train_images, [0.5], [0.25], torch.device("cpu"))
    rows = pixels.batch(torch.as_tensor(labelled)).flatten(1).double().numpy()
    return Pooled(alpha=penalty, solver="svd").fit(rows, np.eye(3)[images.train_labels[labelled]])


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_round_of_the_federation_is_the_pooled_solution_and_more_are_the_same(
    images, make_pools, train, in_double, rounds
):
    pools = make_pools([6, 14, 9])
    update, options = {"name": "ridge", "penalty": 2.0}, {"federation": {"rounds": rounds}, "model": "linear"}
    start = build("linear", in_channels=1, num_classes=3, image_size=(6, 6)).double().state_dict()
    done = train(pools, update, start=start, **options)[2]
    expected = pooled(images, pools, 2.0)
    np.testing.assert_allclose(done.global_state["head.weight"].numpy(), expected.coef_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(done.global_state["head.bias"].numpy(), expected.intercept_, rtol=0, atol=1e-9)


def test_what_a_client_sends_and_keeps(images, make_pools, train, monkeypatch):
    results = {}
    original = Worker.train

    def spy(self, task):
        results[task.site.client] = result = original(self, task)
        return result

    monkeypatch.setattr(Worker, "train", spy)
    pools = make_pools([4, 5, 14])
    _, start, done = train(pools, {"name": "ridge", "penalty": 2.0}, model="linear", federation={"rounds": 1})
    assert {client: set(result.message) for client, result in results.items()} == {
        0: set(), 1: {"gram", "moment"}, 2: {"gram", "moment"},
    }  # fmt: skip
    gram = unpacked(torch.as_tensor(results[2].message["gram"]))
    assert gram.shape == (37, 37)
    assert gram.dtype == torch.float64
    assert results[2].message["moment"][-1].tolist() == np.bincount(pools[2].labels, minlength=3).tolist()
    # A client's own model is its own solution; one with too few images has the broadcast one.
    alone = pooled(images, {2: pools[2]}, 2.0)
    np.testing.assert_allclose(results[2].site.model["head.weight"], alone.coef_, atol=1e-5)
    assert all((results[0].site.model[name] == tensor.numpy()).all() for name, tensor in start.items())
    together = pooled(images, {client: pools[client] for client in (1, 2)}, 2.0)
    np.testing.assert_allclose(done.global_state["head.weight"], together.coef_, atol=1e-5)
    assert [row["bytes_up"] - row["bytes_down"] for row in done.rows] == [0, *(2 * [8 * (37 * 38 // 2 + 37 * 3)])]


def test_the_loss_is_the_squared_error_of_the_client_s_solution(images, make_pools, train):
    pools = make_pools([14])
    rows = train(pools, {"name": "ridge", "penalty": 2.0}, model="linear", federation={"rounds": 1})[2].rows
    given = (images.train_images[pools[0].labelled].reshape(14, -1) / 255 - 0.5) / 0.25
    errors = pooled(images, pools, 2.0).predict(given) - np.eye(3)[pools[0].labels]
    assert rows[0]["loss"] == pytest.approx((errors**2).sum(axis=1).mean(), rel=1e-4)


def test_other_weights_than_the_head_s_stay(make_pools, train):
    _, start, done = train(make_pools([8, 9]), "ridge", model={"name": "mlp", "width": 9})
    assert torch.equal(done.global_state["hidden.weight"], start["hidden.weight"])
    assert not torch.equal(done.global_state["head.weight"], start["head.weight"])


def test_a_round_in_which_all_have_too_few_is_an_error(make_pools, train):
    with pytest.raises(UserError, match="update.min_count: found 20, and all 2 clients"):
        train(make_pools([8, 9]), {"name": "ridge", "min_count": 20}, model="linear")


@pytest.mark.parametrize("options", [{"penalty": 0}, {"min_count": 0}, {"loss": "ce"}])
def test_options_are_checked(options):
    with pytest.raises(UserError, match=f"update.{next(iter(options))}"):
        create("update", "ridge", options, UPDATES)

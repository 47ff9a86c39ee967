"""SCAFFOLD and FedNova on a linear model: the engine against a page of numpy, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kafal_pipeline.config import AugmentationConfig, TrainingConfig
from kafal_pipeline.training.batches import labelled_batches
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.draws import Draws
from kafal_pipeline.training.local import ClientSamples, LocalStart, Networks, train_locally
from kafal_pipeline.update.base import ClientUpdate, LocalOutcome
from kafal_pipeline.update.fednova import FedNova
from kafal_pipeline.update.fedprox import FedProx
from kafal_pipeline.update.scaffold import Scaffold

SIZES, ROUNDS, CLASSES, PIXELS = (4, 10), 3, 3, 4
LR, DECAY = 0.1, 1e-2


class Linear(nn.Module):
    """A linear model in double precision."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(PIXELS, CLASSES, bias=False, dtype=torch.float64)

    def forward(self, images):
        return self.head(images.double().flatten(1))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(sum(SIZES), 2, 2, 1), dtype=np.uint8)
    return images, rng.integers(CLASSES, size=sum(SIZES))


def members(client):
    return np.arange(SIZES[client]) + sum(SIZES[:client])


def with_the_engine(update, data, momentum, participants):
    """Two clients by `train_locally` and the update's hooks; returns the model after every round."""
    images, labels = data
    pixels = Pixels(images, [0.5], [0.25], torch.device("cpu"))
    training = TrainingConfig(
        local_epochs=2, batch_size=4, batches="published", lr=LR, momentum=momentum, weight_decay=DECAY,
        lr_drop_epoch=3, augmentation=AugmentationConfig(flip=False, crop_padding=0),
    )  # fmt: skip
    model, server, models = {"head.weight": torch.zeros(CLASSES, PIXELS, dtype=torch.float64)}, {}, []
    kept, memory = {0: {}, 1: {}}, {0: (None, 0, 0), 1: (None, 0, 0)}
    for round_ in range(ROUNDS):
        sent = []
        for client in participants[round_]:
            student = Linear()
            student.load_state_dict(model)
            mine = torch.tensor(labels[members(client)])
            buffers, epochs, steps = memory[client]
            result = train_locally(
                Networks(student), update, pixels,
                ClientSamples(torch.tensor(members(client)), mine, torch.empty(0, dtype=torch.int64),
                              torch.bincount(mine, minlength=CLASSES)),
                training,
                LocalStart(round_, Draws.of(torch.Generator().manual_seed(10 * round_ + client)),
                           epochs, buffers, steps, update.correction(kept[client], server)),
            )  # fmt: skip
            memory[client] = (result.momentum, result.epochs, steps + result.steps)
            state = {key: tensor.clone() for key, tensor in student.state_dict().items()}
            outcome = LocalOutcome(model, state, kept[client], server, result.travel)
            kept[client], message = update.finish(outcome)
            sent.append(ClientUpdate(state, len(mine), result.travel, frozenset(state), message))
        model, server = update.aggregate(model, server, sent, len(SIZES))
        models.append(model["head.weight"].numpy())
    return models


def by_hand(method, data, momentum, participants):
    """The same from the papers' formulas, in numpy."""
    images, labels = data
    pixels = Pixels(images, [0.5], [0.25], torch.device("cpu"))
    x = pixels.batch(torch.arange(len(images))).double().flatten(1).numpy()
    w, c = np.zeros((CLASSES, PIXELS)), np.zeros((CLASSES, PIXELS))
    own = {k: np.zeros_like(w) for k in (0, 1)}
    velocity, weights_in_velocity, epochs = {0: 0.0, 1: 0.0}, {0: 0.0, 1: 0.0}, {0: 0, 1: 0}
    models = []
    for round_ in range(ROUNDS):
        ends, travels, changes = {}, {}, {}
        for k in participants[round_]:
            generator = torch.Generator().manual_seed(10 * round_ + k)
            v, travel = w.copy(), 0.0
            for _ in range(2):
                epochs[k] += 1
                lr = LR * (0.1 if epochs[k] >= 3 else 1.0)
                for batch in labelled_batches(SIZES[k], 4, "published", generator):
                    at = members(k)[batch.numpy()]
                    z = x[at] @ v.T
                    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
                    gradient = (p - np.eye(CLASSES)[labels[at]]).T @ x[at] / len(at)
                    if method == "scaffold":
                        gradient += c - own[k]
                    if method == "fedprox":
                        gradient += 0.5 * (v - w)
                    velocity[k] = momentum * velocity[k] + gradient + DECAY * v
                    weights_in_velocity[k] = momentum * weights_in_velocity[k] + 1
                    v = v - lr * velocity[k]
                    travel += lr * weights_in_velocity[k]
            ends[k], travels[k] = v, travel
            new = own[k] - c + (w - v) / travel
            changes[k] = new - own[k]
            own[k] = new
        share = {k: SIZES[k] / sum(SIZES[j] for j in ends) for k in ends}
        if method == "fednova":
            w = w - sum(share[k] * travels[k] for k in ends) * sum(share[k] * (w - ends[k]) / travels[k] for k in ends)
        else:
            w = sum(share[k] * ends[k] for k in ends)
        c = c + sum(changes.values()) / 2
        models.append(w)
    return models


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("participants", [[(0, 1)] * ROUNDS, [(0, 1), (1,), (0, 1)], [(1,), (0,), (0, 1)]])
@pytest.mark.parametrize(
    ("method", "update"), [("scaffold", Scaffold()), ("fednova", FedNova()), ("fedprox", FedProx(mu=0.5))]
)
def test_agrees_with_the_papers_formulas(method, update, data, momentum, participants):
    actual = with_the_engine(update, data, momentum, participants)
    expected = by_hand(method, data, momentum, participants)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)
    assert not np.allclose(actual[0], actual[-1])


def test_a_constant_gradient_comes_back_as_the_control(data):
    """What `travel` is for: with momentum too, the control of a client whose gradient is constant is that gradient."""
    update, gradient = Scaffold(), {"w": torch.tensor([0.3, -2.0])}
    w, velocity, inertia, travel = torch.zeros(2), torch.zeros(2), 0.0, 0.0
    for _ in range(7):
        velocity, inertia = 0.9 * velocity + gradient["w"], 0.9 * inertia + 1
        w, travel = w - 0.1 * velocity, travel + 0.1 * inertia
    kept, message = update.finish(LocalOutcome({"w": torch.zeros(2)}, {"w": w}, {}, {}, travel))
    torch.testing.assert_close(kept, gradient)
    torch.testing.assert_close(message, gradient)

"""The published training semantics of one client, each against plain PyTorch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kafal_pipeline.config import AugmentationConfig, TrainingConfig
from kafal_pipeline.models.factory import build
from kafal_pipeline.training import step
from kafal_pipeline.training.batches import labelled_batches
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.draws import Draws
from kafal_pipeline.training.local import ClientSamples, LocalStart, Networks, learning_rate, train_locally
from kafal_pipeline.training.step import Workspace
from kafal_pipeline.update.base import Correction
from kafal_pipeline.update.fedavg import FedAvg
from kafal_pipeline.update.kcfu import KCFU

PLAIN = AugmentationConfig(flip=False, crop_padding=0)


@pytest.fixture
def pixels():
    images = np.random.default_rng(0).integers(0, 256, size=(60, 8, 8, 1), dtype=np.uint8)
    return Pixels(images, [0.5], [0.25], torch.device("cpu"))


def samples(labelled=20, unlabelled=30):
    labels = torch.arange(labelled) % 3
    return ClientSamples(
        torch.arange(labelled), labels, torch.arange(30, 30 + unlabelled), torch.bincount(labels, minlength=4)
    )


def network(seed=0):
    return build("resnet8", in_channels=1, num_classes=4, generator=torch.Generator().manual_seed(seed))


def config(**changes):
    values = {"local_epochs": 2, "batch_size": 8, "lr": 0.05, "augmentation": PLAIN}
    return TrainingConfig(**{**values, **changes})


def run(student, pixels, update=None, *, training=None, of=None, seed=0, **start):
    teacher = copy.deepcopy(student).requires_grad_(False)
    return train_locally(
        Networks(student, teacher),
        update or FedAvg(),
        pixels,
        of or samples(),
        training or config(),
        LocalStart(1, Draws.of(torch.Generator().manual_seed(seed)), **start),
    )


@pytest.mark.parametrize("batches", ["equal", "published"])
def test_equals_plain_sgd_in_float64(pixels, batches):
    """Our steps in float32 follow those of a loop that anyone would write, in double precision."""
    student, reference = network(), network().double()
    training = config(batches=batches, local_epochs=3)
    result = run(student, pixels, training=training)

    reference.train()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    generator, of, losses = torch.Generator().manual_seed(0), samples(), []
    for _ in range(3):
        for batch in labelled_batches(20, 8, batches, generator):
            optimizer.zero_grad()
            images = pixels.batch(of.labelled[batch]).double()
            loss = nn.functional.cross_entropy(reference(images), of.labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert result.steps == len(losses) == 9
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-4)
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(student.state_dict()[name].double(), tensor.double(), rtol=2e-3, atol=2e-4, msg=name)


def test_corrected_gradients_equal_plain_sgd_in_float64(pixels):
    """What an update adds to the gradients, in the network's memory layout, whatever the one it came in."""
    student, reference = network(), network().double()
    drawn = torch.Generator().manual_seed(3)
    shift = {name: 0.1 * torch.randn(p.shape, generator=drawn) for name, p in student.named_parameters()}
    begin = {name: p.detach().clone() for name, p in reference.named_parameters()}
    result = run(student, pixels, correction=Correction(pull=0.7, shift=shift))

    reference.train()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    generator, of = torch.Generator().manual_seed(0), samples()
    for _ in range(2):
        for batch in labelled_batches(20, 8, "equal", generator):
            optimizer.zero_grad()
            logits = reference(pixels.batch(of.labelled[batch]).double())
            loss = nn.functional.cross_entropy(logits, of.labels[batch])
            for name, parameter in reference.named_parameters():
                difference = parameter - begin[name]
                loss = loss + 0.35 * difference.square().sum() + (shift[name].double() * parameter).sum()
            loss.backward()
            optimizer.step()
    assert result.steps == 6
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(student.state_dict()[name].double(), tensor.double(), rtol=2e-3, atol=2e-4, msg=name)


def test_travel_is_how_far_a_constant_gradient_moves_the_parameters(pixels):
    """Also in a later round, and where the rate drops within it."""

    class Constant(FedAvg):
        def client_loss(self, step):
            return sum(parameter.sum() for parameter in step.student.parameters())

    training = config(weight_decay=0.0, lr_drop_epoch=4)
    student, momentum, steps, epochs = network(), None, 0, 0
    for _ in range(3):
        before = student.head.bias.detach().clone()
        result = run(student, pixels, Constant(), training=training, momentum=momentum, steps=steps, epochs=epochs)
        assert result.travel == pytest.approx(float((before - student.head.bias.detach()).mean()), rel=1e-4)
        momentum, steps, epochs = result.momentum, steps + result.steps, result.epochs


def test_momentum_continues_where_it_stopped(pixels):
    """Two rounds of one epoch with the kept momentum are two epochs at once, given the same batches."""
    one_batch = config(batch_size=20, local_epochs=2)
    at_once = network()
    run(at_once, pixels, training=one_batch)
    in_rounds = network()
    half = config(batch_size=20, local_epochs=1)
    first = run(in_rounds, pixels, training=half)
    second = run(in_rounds, pixels, training=half, momentum=first.momentum, epochs=first.epochs)
    assert second.epochs == 2
    for name, tensor in at_once.state_dict().items():
        torch.testing.assert_close(in_rounds.state_dict()[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    forgetful = network()
    run(forgetful, pixels, training=half)
    run(forgetful, pixels, training=half, momentum=None, epochs=1)
    assert not torch.allclose(forgetful.head.weight, at_once.head.weight, rtol=1e-4, atol=1e-6)


def test_momentum_is_the_same_in_every_memory_layout(pixels):
    kept = run(network(), pixels).momentum
    contiguous = {name: tensor.contiguous() for name, tensor in kept.items()}
    assert any(kept[name].stride() != contiguous[name].stride() for name in kept)
    first, second = network(), network()
    run(first, pixels, momentum=kept)
    run(second, pixels, momentum=contiguous)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_in_another_layout_give_the_same_step(channels):
    parameters = [
        parameter.detach().clone(memory_format=torch.preserve_format)
        for parameter in build(
            "resnet8", in_channels=channels, num_classes=4, generator=torch.Generator().manual_seed(0)
        ).parameters()
    ]
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(parameter.shape, generator=generator) for parameter in parameters]
    expected = [
        parameter - 0.05 * (gradient + 5e-4 * parameter)
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
    space = Workspace(parameters, [], [], torch.zeros(()), 0.05, torch.zeros(4))
    step.sgd_step(space, gradients, config(momentum=0.0))
    for parameter, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter, wanted)


def test_momentum_given_is_not_changed(pixels):
    student = network()
    kept = run(student, pixels).momentum
    before = {name: tensor.clone() for name, tensor in kept.items()}
    run(student, pixels, momentum=kept)
    assert all(torch.equal(kept[name], before[name]) for name in before)


def test_learning_rate_drops_at_the_epoch_asked_for(pixels, monkeypatch):
    training = config(lr=0.1, lr_drop_epoch=260, local_epochs=40, batch_size=20)
    assert [learning_rate(training, epoch) for epoch in (1, 259)] == [0.1, 0.1]
    assert [learning_rate(training, epoch) for epoch in (260, 500)] == pytest.approx([0.01, 0.01])
    seen = []
    original = step.sgd_step

    def sgd_step(space, gradients, training):
        seen.append(space.lr)
        original(space, gradients, training)

    monkeypatch.setattr(step, "sgd_step", sgd_step)
    run(network(), pixels, training=training, epochs=240)  # the seventh participation: epochs 241 .. 280
    assert seen == pytest.approx([0.1] * 19 + [0.01] * 21)


def test_weight_decay_acts_on_all_parameters(pixels):
    light, heavy = network(), network()
    run(light, pixels, training=config(weight_decay=0.0, local_epochs=1, batch_size=20))
    run(heavy, pixels, training=config(weight_decay=0.5, local_epochs=1, batch_size=20))
    start = dict(network().named_parameters())
    heavy_parameters = dict(heavy.named_parameters())
    for name, parameter in light.named_parameters():
        expected = parameter - 0.05 * 0.5 * start[name]
        torch.testing.assert_close(heavy_parameters[name], expected, rtol=1e-3, atol=1e-6, msg=name)


class Spy(KCFU):
    """KCFU that remembers the sizes of its batches."""

    def loss_terms(self, step):
        sizes = self.__dict__.setdefault("sizes", [])
        sizes.append((len(step.images), None if step.unlabelled is None else len(step.unlabelled)))
        assert step.student.training
        return super().loss_terms(step)


def test_all_training_images_are_augmented_and_the_unlabelled_shuffled_again_each_epoch(pixels, monkeypatch):
    seen = []
    original = pixels.augmented

    def augmented(indices, augmentation, generator):
        seen.append((indices.tolist(), augmentation))
        return original(indices, augmentation, generator)

    monkeypatch.setattr(pixels, "augmented", augmented)
    monkeypatch.setattr(pixels, "batch", lambda indices: pytest.fail("an image was not augmented"))
    asked = AugmentationConfig(flip=True, crop_padding=2)
    run(network(), pixels, KCFU(), training=config(augmentation=asked, local_epochs=2, batch_size=8))
    assert all(augmentation == asked for _, augmentation in seen)
    labelled = [indices for indices, _ in seen[::2]]
    others = [indices for indices, _ in seen[1::2]]
    assert [len(indices) for indices in others] == [8] * 6  # three batches an epoch of a pool of thirty
    for epoch in (0, 3):
        assert sorted(sum(labelled[epoch : epoch + 3], [])) == list(range(20))
        assert len(set(sum(others[epoch : epoch + 3], []))) == 24
    # One shuffle going on into the next epoch would give the six that were left first.
    left = set(range(30, 60)) - set(sum(others[:3], []))
    assert not left <= set(others[3])


@pytest.mark.parametrize(
    ("unlabelled", "expected"),
    [(30, [(8, 8), (8, 8), (4, 8)]), (10, [(8, 8), (8, 2), (4, 8)]), (0, [(8, None), (8, None), (4, None)])],
)
def test_one_unlabelled_batch_of_full_size_for_each_labelled_one(pixels, unlabelled, expected):
    update = Spy()
    run(
        network(),
        pixels,
        update,
        training=config(batches="published", local_epochs=1),
        of=samples(unlabelled=unlabelled),
    )
    assert update.sizes == expected


def test_the_teacher_stays_the_broadcast_model(pixels):
    student = network()
    teacher = copy.deepcopy(student).requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in teacher.named_parameters()}
    train_locally(
        *(Networks(student, teacher), KCFU(), pixels, samples(), config()),
        LocalStart(1, Draws.of(torch.Generator().manual_seed(0))),
    )
    assert all(torch.equal(parameter, before[name]) for name, parameter in teacher.named_parameters())
    assert not torch.equal(student.head.weight, before["head.weight"])


@pytest.mark.parametrize("labelled", [1, 2, 17])
def test_few_labels_train_to_finite_weights(pixels, labelled):
    student = network()
    run(student, pixels, KCFU(), of=samples(labelled=labelled))
    assert all(torch.isfinite(tensor).all() for tensor in student.state_dict().values())


def test_bf16_follows_fp32_and_keeps_float32_weights(pixels):
    exact, fast = network(), network()
    one_step = {"local_epochs": 1, "batch_size": 20}
    losses = [
        run(student, pixels, KCFU(), training=config(precision=precision, **one_step)).loss
        for student, precision in ((exact, "fp32"), (fast, "bf16"))
    ]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.02)
    start = network().state_dict()
    moved, similar = (
        torch.cat([(parameter - start[name]).detach().flatten() for name, parameter in student.named_parameters()])
        for student in (exact, fast)
    )
    assert similar.dtype == torch.float32
    assert float(nn.functional.cosine_similarity(moved, similar, dim=0)) > 0.97


def test_same_generator_same_bits(pixels):
    first, second, other = network(), network(), network()
    run(first, pixels, KCFU(), training=config(augmentation=AugmentationConfig(flip=True, crop_padding=1)))
    run(second, pixels, KCFU(), training=config(augmentation=AugmentationConfig(flip=True, crop_padding=1)))
    run(other, pixels, KCFU(), training=config(augmentation=AugmentationConfig(flip=True, crop_padding=1)), seed=1)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert not torch.equal(first.head.weight, other.head.weight)

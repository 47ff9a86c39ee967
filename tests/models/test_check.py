"""A network of a user's own that is not as documented is refused after one forward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.models import MODELS
from kafal_pipeline.models.check import check_network
from kafal_pipeline.models.factory import build

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Good(nn.Module):
    def __init__(self, in_channels=1, num_classes=3):
        super().__init__()
        self.body, self.head = nn.Conv2d(in_channels, 4, 3, padding=1), nn.Linear(4, num_classes)

    def initialise(self, generator):
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)

    def features(self, images):
        return self.body(images).relu().mean((2, 3))

    def forward(self, images):
        return self.head(self.features(images))


class Two(Good):
    def forward(self, images):
        return super().forward(images), 1


class NoHead(Good):
    def __init__(self):
        super().__init__()
        self.out = self.head
        del self.head

    def forward(self, images):
        return self.out(self.features(images))


class OtherHead(Good):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(self.head)


class NoBias(Good):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3, bias=False)


class OtherClasses(Good):
    def __init__(self):
        super().__init__(num_classes=6)


class OtherWidth(Good):
    def features(self, images):
        return torch.cat([super().features(images)] * 2, dim=1)

    def forward(self, images):
        return self.head(super().features(images))


class NoParameters(nn.Module):
    head = nn.Identity()

    def initialise(self, generator):
        pass


class Double(Good):
    def __init__(self):
        super().__init__()
        self.double()


class Frozen(Good):
    def __init__(self):
        super().__init__()
        self.body.requires_grad_(False)


class Detached(Good):
    def forward(self, images):
        return (super().forward(images).detach() + 0 * images.mean()).requires_grad_()


class Undrawn(Good):
    def initialise(self, generator):
        pass


class Counts(Good):
    calls = 0

    def forward(self, images):
        self.calls += 1
        return super().forward(images) + self.calls


class Scaled(Good):
    def forward(self, images):
        return 2 * super().forward(images)


class Infinite(Good):
    def forward(self, images):
        return super().forward(images) / 0


class ComplexBuffer(Good):
    def __init__(self, *shape):
        super().__init__(*shape)
        self.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))


class ExtraState(Good):
    def get_extra_state(self):
        return {"epoch": 1}


def maker(cls):
    def make(generator):
        network = cls()
        network.initialise(generator)
        return network

    return make


@pytest.mark.parametrize(
    ("cls", "part"),
    [
        (Two, r"`forward` returned an object of type tuple; allowed: a float32 tensor of shape \(4, 3\)"),
        (NoHead, "`head` is None; allowed: a torch.nn.Linear with a bias and 3 outputs"),
        (OtherHead, "`head` is Sequential"),
        (NoBias, "bias=False"),
        (OtherClasses, "out_features=6"),
        (OtherWidth, r"`features` returned Tensor of torch.float32 of shape \(4, 8\)"),
        (NoParameters, "no parameters"),
        (Double, "parameter 'body.weight' is torch.float64"),
        (Frozen, "parameter 'body.weight' is torch.float32 without requires_grad"),
        (Detached, "no gradient for any parameter"),
        (Undrawn, "`initialise` gave other weights for the same generator"),
        (Counts, "gave other logits the second time"),
        (Scaled, "is not `head"),
        (Infinite, "is not finite"),
        (ExtraState, "its state has an object of type dict as '_extra_state'; allowed: tensors of real"),
        (ComplexBuffer, r"its state has Tensor of torch.complex64 of shape \(2,\) as 'phase'"),
    ],
)
def test_a_network_that_is_not_as_documented_is_refused(cls, part):
    with pytest.raises(NotAllowed, match=part):
        check_network(maker(cls), IMAGES, 3)


def test_networks_as_documented_pass():
    assert isinstance(check_network(maker(Good), IMAGES, 3), Good)
    for name in MODELS:
        check_network(
            lambda g, n=name: build(n, in_channels=1, num_classes=3, image_size=(8, 8), generator=g), IMAGES, 3
        )

"""How KAFAL's published code works, written plainly: the contestant that the engine is measured against.

NCHW float32, clients one after another, PIL transforms in loader processes that are made again for every client and
epoch, ``torch.optim.SGD``. `arithmetic` does the same steps on batches that lie ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from kafal_pipeline.models.resnet8 import BasicBlock, ResNet8
from kafal_pipeline.update.kcfu import class_weight, compensation_weight, compensatory_loss
from kafal_pipeline.update.losses import balanced_softmax
from pil_transforms import transform_of

LOADER_PROCESSES = 4
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Client:
    """What a client trains on, as indices, and for how many epochs."""

    labelled: np.ndarray
    unlabelled: np.ndarray
    epochs: int = 1


@dataclass(frozen=True)
class Setting:
    """Batch size and augmentation of a data set."""

    batch: int
    flip: bool
    padding: int
    device: str = "cpu"


class PlainBlock(BasicBlock):
    """A block as everybody writes it: every result in memory of its own."""

    def forward(self, images: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(images)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(images))


class PlainNetwork(ResNet8):
    """The same network in PyTorch's default layout, of `PlainBlock`."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, classes)
        for block in (self.stage1, self.stage2, self.stage3):
            block.__class__ = PlainBlock

    def features(self, images: Tensor) -> Tensor:
        out = self.stage3(self.stage2(self.stage1(self.stem(images))))
        return F.relu(self.bn(out)).mean(dim=(2, 3))


class PilImages(Dataset):
    """Images through PIL transforms, one at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, setting: Setting) -> None:
        self.images, self.labels = images.squeeze(-1) if images.shape[-1] == 1 else images, labels
        self.transform = transform_of(images.shape[1], images.shape[-1], setting.flip, setting.padding)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def step(
    student: nn.Module, teacher: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, counts: Tensor
) -> Tensor:
    """One step of KCFU with the published code's switches; returns the loss."""
    images, labels, unlabelled = batch
    size = len(unlabelled)
    beta = torch.distributions.Beta(2.0, 2.0).sample((size,)).to(unlabelled)
    partner = torch.randint(size, (1,), device=unlabelled.device).expand(size)
    share = beta.view(-1, 1, 1, 1)
    mixed = share * unlabelled + (1 - share) * unlabelled[partner]
    with torch.no_grad():
        teacher_logits = teacher(mixed)
        gamma = compensation_weight(class_weight(counts), teacher_logits, beta, partner)
    loss = balanced_softmax(student(images), labels, counts)
    loss = loss + compensatory_loss(student(mixed), teacher_logits, gamma)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


class Contestant:
    """A client's student, teacher and optimizer, as the published code makes them.

    Parameters
    ----------
    channels, classes
        Of the network.
    device
        Where it computes.
    """

    def __init__(self, channels: int = 3, classes: int = 10, device: str = "cpu") -> None:
        self.device = device
        self.classes = classes
        self.student = PlainNetwork(channels, classes).to(device).train()
        self.teacher = PlainNetwork(channels, classes).to(device).train()
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def step(self, batch: Batch, counts: Tensor) -> None:
        step(self.student, self.teacher, self.optimizer, batch, counts)


def as_written(images: np.ndarray, labels: np.ndarray, clients: Sequence[Client], setting: Setting) -> int:
    """Train client after client; return the samples it took, labelled and unlabelled."""
    done, classes = 0, int(labels.max()) + 1
    for client in clients:
        contestant = Contestant(images.shape[-1], classes, setting.device)
        counts = torch.as_tensor(np.bincount(labels[client.labelled], minlength=classes), device=setting.device)
        for _ in range(client.epochs):
            first, second = (
                iter(
                    DataLoader(
                        PilImages(images[of], labels[of], setting),
                        setting.batch,
                        shuffle=True,
                        num_workers=LOADER_PROCESSES,
                    )
                )
                for of in (client.labelled, client.unlabelled)
            )
            for batch_images, batch_labels in first:
                other, _ = next(second)
                batch = tuple(part.to(setting.device) for part in (batch_images, batch_labels, other))
                contestant.step(batch, counts)
                done += len(batch_images) + len(other)
    return done


def ready_batches(images: np.ndarray, labels: np.ndarray, count: int, setting: Setting) -> list[Batch]:
    """Batches on the device for `arithmetic`."""
    size = 2 * setting.batch * count
    loaded = DataLoader(PilImages(images[:size], labels[:size], setting), setting.batch)
    parts = [tuple(part.to(setting.device) for part in batch) for batch in loaded]
    return [(*parts[2 * index], parts[2 * index + 1][0]) for index in range(count)]


def arithmetic(batches: Sequence[Batch], contestant: Contestant, times: int = 1) -> int:
    """Do the steps alone; return the samples they took."""
    counts = torch.full((contestant.classes,), 10, device=contestant.device)
    for _ in range(times):
        for batch in batches:
            contestant.step(batch, counts)
    return times * sum(len(batch[0]) + len(batch[2]) for batch in batches)


@torch.no_grad()
def score(batches: Sequence[Tensor]) -> int:
    """Two plain forwards, as KSAS needs them; return the samples."""
    first, second = (Contestant().student.eval() for _ in range(2))
    for images in batches:
        first(images)
        second(images)
    return sum(len(images) for images in batches)

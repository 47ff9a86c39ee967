"""How KAFAL's published code works, written plainly: the contestant that the engine is measured against.

NCHW float32, clients one after another, PIL transforms in loader processes that are made anew for every client and
epoch, ``torch.optim.SGD``. `arithmetic` does the same steps on batches that lie ready.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from kafal_pipeline.models.resnet8 import ResNet8
from kafal_pipeline.update.kcfu import class_weight, compensation_weight, compensatory_loss
from kafal_pipeline.update.losses import balanced_softmax

BATCH = 128
WORKERS = 4
Batch = tuple[Tensor, Tensor, Tensor]


class PilImages(Dataset):
    """Images through PIL and torchvision's transforms, one at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        from torchvision import transforms

        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomCrop(images.shape[1], padding=4),
                transforms.ToTensor(),
                transforms.Normalize([0.49, 0.48, 0.45], [0.25, 0.24, 0.26]),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def new_network(classes: int = 10) -> nn.Module:
    """The same network in PyTorch's default layout."""
    return ResNet8(3, classes)


def step(
    student: nn.Module, teacher: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, counts: Tensor
) -> None:
    """One step of KCFU with the published code's switches."""
    images, labels, unlabelled = batch
    size = len(unlabelled)
    beta = torch.distributions.Beta(2.0, 2.0).sample((size,))
    partner = torch.randint(size, (1,)).expand(size)
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


def new_client() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """A student, a teacher with batch statistics, and the student's optimizer."""
    student, teacher = new_network().train(), new_network().train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    return student, teacher, optimizer


def as_written(images: np.ndarray, labels: np.ndarray, clients: list[tuple[np.ndarray, np.ndarray]]) -> int:
    """Train each client for one epoch; return the samples it took, labelled and unlabelled."""
    done = 0
    for labelled, unlabelled in clients:
        student, teacher, optimizer = new_client()
        counts = torch.as_tensor(np.bincount(labels[labelled], minlength=10))
        first, second = (
            iter(DataLoader(PilImages(images[of], labels[of]), BATCH, shuffle=True, num_workers=WORKERS))
            for of in (labelled, unlabelled)
        )
        for batch_images, batch_labels in first:
            other, _ = next(second)
            step(student, teacher, optimizer, (batch_images, batch_labels, other), counts)
            done += len(batch_images) + len(other)
    return done


def ready_batches(images: np.ndarray, labels: np.ndarray, count: int) -> list[Batch]:
    """Batches in memory for `arithmetic`."""
    loaded = DataLoader(PilImages(images[: 2 * BATCH * count], labels[: 2 * BATCH * count]), BATCH)
    parts = list(loaded)
    return [(*parts[2 * index], parts[2 * index + 1][0]) for index in range(count)]


def arithmetic(batches: list[Batch]) -> int:
    """Do the steps alone; return the samples they took."""
    student, teacher, optimizer = new_client()
    counts = torch.full((10,), 10)
    for batch in batches:
        step(student, teacher, optimizer, batch, counts)
    return sum(len(batch[0]) + len(batch[2]) for batch in batches)


@torch.no_grad()
def score(pixels: list[Tensor]) -> int:
    """Two plain forwards, as KSAS needs them; return the samples."""
    first, second = new_network().eval(), new_network().eval()
    for images in pixels:
        first(images)
        second(images)
    return sum(len(images) for images in pixels)

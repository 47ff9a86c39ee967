"""Random generators that a client's round draws from."""

from dataclasses import dataclass
from typing import Self

import torch

from kafal_pipeline.common.randomness import Purpose, seed_torch


@dataclass(frozen=True)
class Draws:
    """A generator for each purpose, so that updates with the same seed train on the same labelled batches.

    With one for all, an update that draws a number more than another would also shuffle and augment otherwise.

    `labelled`, `unlabelled`: shuffles and augmentation of these images. `update`: what the update draws in its loss.
    """

    labelled: torch.Generator
    unlabelled: torch.Generator
    update: torch.Generator

    @classmethod
    def on(cls, device: torch.device) -> Self:
        """Make generators on a device, to be seeded."""
        return cls(*(torch.Generator(device=device) for _ in range(3)))

    @classmethod
    def of(cls, generator: torch.Generator) -> Self:
        """Take all from one generator, where no other update trains with the same key."""
        return cls(generator, generator, generator)

    def seed(self, seed: int, cycle: int, round_: int, client: int) -> Self:
        """Start the streams of one client's round."""
        purposes = (Purpose.TRAINING, Purpose.UNLABELLED, Purpose.UPDATE)
        for generator, purpose in zip((self.labelled, self.unlabelled, self.update), purposes, strict=True):
            seed_torch(generator, seed, purpose, cycle, round_, client)
        return self

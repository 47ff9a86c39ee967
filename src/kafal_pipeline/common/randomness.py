"""Random generators, each derived from its purpose, so that nothing depends on the order of events.

Every draw of the program comes from a generator keyed by ``(seed, purpose, cycle, round, client)``. Hence a result does
not depend on the number of processes, on which clients run side by side, or on where a run was restarted, and two
strategies with the same seed share their split, initial pool and initial weights.
"""

from __future__ import annotations

import random
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class Purpose(IntEnum):
    """What a generator is for. The numbers are part of every result: never change one, only add."""

    PARTITION = 1
    LONG_TAIL = 2
    SUBSET = 3
    INITIAL_POOL = 4
    MODEL = 5
    PARTICIPANTS = 6
    TRAINING = 7
    QUERY = 8
    QUERY_MODEL = 9
    WATCH = 10
    UNLABELLED = 11
    UPDATE = 12
    TEST_SET = 13


def seed_sequence(
    seed: int, purpose: Purpose, cycle: int = 0, round_: int = 0, client: int = 0
) -> np.random.SeedSequence:
    """Return the seed sequence of one draw; equal arguments give equal sequences, different ones independent ones."""
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), cycle, round_, client))


def numpy_generator(
    seed: int, purpose: Purpose, cycle: int = 0, round_: int = 0, client: int = 0
) -> np.random.Generator:
    """Return a fresh numpy generator for one purpose.

    >>> a, b = (numpy_generator(0, Purpose.QUERY, cycle=2, client=1) for _ in range(2))
    >>> bool(a.random() == b.random())
    True
    """
    return np.random.default_rng(seed_sequence(seed, purpose, cycle, round_, client))


def torch_generator(
    seed: int, purpose: Purpose, cycle: int = 0, round_: int = 0, client: int = 0, device: str = "cpu"
) -> torch.Generator:
    """Return a fresh torch generator on `device` for one purpose."""
    import torch

    return seed_torch(torch.Generator(device=device), seed, purpose, cycle, round_, client)


def seed_global_generators(seed: int, purpose: Purpose, cycle: int = 0, round_: int = 0, client: int = 0) -> None:
    """Seed those of Python, NumPy and PyTorch, from which nothing here draws, for code of a user's own that does."""
    import torch

    state = int(seed_sequence(seed, purpose, cycle, round_, client).generate_state(1, np.uint32)[0])
    random.seed(state)
    np.random.seed(state)
    torch.manual_seed(state)


def seed_torch(
    generator: torch.Generator, seed: int, purpose: Purpose, cycle: int = 0, round_: int = 0, client: int = 0
) -> torch.Generator:
    """Seed a torch generator again, as `torch_generator` would, and return it."""
    state = seed_sequence(seed, purpose, cycle, round_, client).generate_state(1, np.uint64)[0]
    # The top bit stays clear, since torch remaps negative seeds. Its CPU generator takes 32 of these bits: some two of
    # 7,236 streams, those of the published protocol's training, are the same with a chance of 1 in 165, harmlessly so.
    return generator.manual_seed(int(state) & (2**63 - 1))

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kafal_pipeline.training.batches import labelled_batches, unlabelled_batches


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 200), st.integers(1, 64), st.sampled_from(["equal", "published"]))
def test_labelled_batches_are_a_permutation(size, batch_size, batches):
    cut = labelled_batches(size, batch_size, batches, generator())
    assert sorted(torch.cat(cut).tolist()) == list(range(size))
    assert len(cut) == -(-size // batch_size)
    lengths = [len(batch) for batch in cut]
    assert max(lengths) <= batch_size
    if batches == "equal":
        assert max(lengths) - min(lengths) <= 1
    else:
        assert set(lengths[:-1]) <= {batch_size}


def test_each_epoch_is_shuffled_again():
    shared = generator()
    first, second = (torch.cat(labelled_batches(50, 8, "equal", shared)).tolist() for _ in range(2))
    assert first != second


@pytest.mark.parametrize(("size", "lengths"), [(20, [8, 8, 4, 8, 8]), (3, [3, 3, 3, 3, 3]), (16, [8, 8, 8, 8, 8])])
def test_unlabelled_batches_are_full_unless_fewer_are_left(size, lengths):
    first = list(itertools.islice(unlabelled_batches(size, 8, generator()), 5))
    assert [len(batch) for batch in first] == lengths
    once = -(-size // 8)
    assert sorted(torch.cat(first[:once]).tolist()) == list(range(size))


def test_an_empty_pool_never_ends_nor_fails():
    assert list(itertools.islice(unlabelled_batches(0, 8, generator()), 3)) == [None, None, None]

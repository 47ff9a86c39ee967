"""Gives images opaque ids, by which people's labels find them again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain

import numpy as np

from kafal_pipeline.data.image_batches import Pixels
from kafal_pipeline.data.sources import RawData

LENGTH = 12  # hexadecimal digits: of a million images, two of other content have the same with a chance of 1 in 560


def with_ids(data: RawData, digests: Mapping[str, str]) -> RawData:
    """Return data with ids for all images if the label of one is missing; else `data` as it is.

    An id is ``s`` and the beginning of the SHA-256 of the image's content at its source: the file, or the bytes of its
    row in the array. So it says nothing of names, and stays when files are renamed, sorted otherwise, added, or resized
    otherwise. Where content comes again, ``-2``, ``-3`` ... is added, in the order of training and then test images.

    `digests`: the SHA-256 of each file, by its name in `RawData.train_files` and `test_files`.
    """
    if not data.unlabelled:
        return data
    if data.train_files is not None and data.test_files is not None:
        # A file that is gone by now has no digest: decoding it says so.
        contents: Iterator[str] = (digests.get(name, "") for name in (*data.train_files, *data.test_files))
    else:
        contents = chain(_rows(data.train_images), _rows(data.test_images))
    seen: Counter[str] = Counter()
    ids = []
    for content in contents:
        start = f"s{content[:LENGTH]}"  # a letter first: Excel takes 123456789012 and 1234e5678901 for numbers
        seen[start] += 1
        ids.append(start if seen[start] == 1 else f"{start}-{seen[start]}")
    count = len(data.train_labels)
    return replace(data, train_ids=np.array(ids[:count]), test_ids=np.array(ids[count:]))


def _rows(pixels: Pixels) -> Iterator[str]:
    """Yield the SHA-256 of each image."""
    for row in range(pixels.shape[0]):
        yield hashlib.sha256(np.ascontiguousarray(pixels[row : row + 1]).data).hexdigest()

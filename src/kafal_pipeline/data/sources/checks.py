"""Checks of arrays that a user supplies; every message names the file and the key."""

import unicodedata

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig

MAX_CHANNELS = 16  # more than any camera has: a larger last axis is a depth or a width in the place of the channels


def as_images(where: str, array: NDArray) -> NDArray[np.uint8]:
    """Return images as ``(N, H, W, C)``; grey ones may come as ``(N, H, W)``.

    Raises `UserError` if the type is not uint8, or the shape is another one or empty.
    """
    if array.dtype != np.uint8:
        nan = " with NaN" if array.dtype.kind == "f" and np.isnan(array).any() else ""
        raise UserError(
            f"{where}: found {array.dtype}{nan}; allowed: uint8, 0 to 255. Scale the pixels to 0..255, round them and "
            "convert them with .astype('uint8')."
        )
    images = array[..., None] if array.ndim == 3 else array
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] > MAX_CHANNELS:
        raise UserError(
            f"{where}: found the shape {array.shape}; allowed: (N, H, W) for grey images, or (N, H, W, C) with the "
            f"channels last and at most {MAX_CHANNELS}, and at least one image."
        )
    return images


def as_features(where: str, array: NDArray) -> NDArray[np.floating]:
    """Return features ``(N, D)`` as images of one pixel, ``(N, 1, 1, D)``.

    Raises `UserError` if the type is not float16 or float32, the shape is another one or empty, or a value is not
    finite.
    """
    if array.dtype.newbyteorder("=") not in (np.float16, np.float32):
        raise UserError(f"{where}: found {array.dtype}; allowed: float16 or float32. Convert with .astype('float32').")
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(
            f"{where}: found the shape {array.shape}; allowed: (N, D), one row of features for each sample."
        )
    if not (finite := np.isfinite(array)).all():
        row, column = np.argwhere(~finite)[0].tolist()
        raise UserError(
            f"{where}: found {array[row, column]} in row {row}, column {column}; allowed: finite numbers. A float16 "
            "holds at most 65504: save larger features as float32."
        )
    return array[:, None, None, :].astype(array.dtype.newbyteorder("="), copy=False)


def as_integers(where: str, array: NDArray, length: int, least: int = 0) -> NDArray[np.int64]:
    """Return `length` integers from `least` as int64 ``(N,)``; ``(N, 1)`` is flattened.

    Raises `UserError` if the type is no integer, an item is less, the length differs or there are several to an image.
    """
    allowed = "integers from 0" + (", or -1 where the label is not known" if least else "")
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim != 1:
        hint = " Several labels to an image are not supported." if array.ndim == 2 else ""
        raise UserError(f"{where}: found the shape {array.shape}; allowed: (N,) or (N, 1).{hint}")
    if flat.dtype.kind not in "iu":
        nan = " with NaN" if flat.dtype.kind == "f" and np.isnan(flat).any() else ""
        raise UserError(f"{where}: found {flat.dtype}{nan}; allowed: {allowed}.")
    if len(flat) != length:
        raise UserError(f"{where}: found {len(flat)} items for {length} images; there must be one for each image.")
    # As unsigned too: a uint64 beyond int64 would turn negative.
    wrong = (flat < least) | (flat > np.iinfo(np.int64).max)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise UserError(f"{where}: found {int(flat[place])} at position {place}; allowed: {allowed}.")
    return flat.astype(np.int64)


def as_name(where: str, name: str) -> str:
    """Return a name in composed characters (NFC), the same however the file system or the program wrote it.

    Raises `UserError` if it is empty, holds control characters, or is made of bytes that are no UTF-8.
    """
    if not name.strip() or any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        shown = ascii(name).replace("\\udc", "\\x")  # how Python keeps bytes that are no UTF-8
        raise UserError(
            f"{where}: found the name {shown}, which is empty, holds control characters or is no UTF-8 (archives made "
            "on other systems unpack so). Rename it."
        )
    return unicodedata.normalize("NFC", name)


def as_names(where: str, array: NDArray) -> tuple[str, ...]:
    """Return an array of strings as names, each as by `as_name`."""
    try:
        names = array.tolist()
    except (ValueError, SystemError) as error:  # code points beyond Unicode
        raise UserError(f"{where}: cannot be read as text ({error}).") from error
    return tuple(as_name(where, name) for name in names)


def class_names(config: DatasetConfig) -> tuple[str, ...] | None:
    """Return ``dataset.classes`` as names, each as by `as_name`; None if it is not set."""
    if config.classes is None:
        return None
    names = tuple(as_name("dataset.classes", name) for name in config.classes)
    if len(set(names)) < len(names):
        raise UserError("dataset.classes: found a name twice, in composed and in decomposed characters (NFC and NFD).")
    return names


def as_clients(where: str, array: NDArray, length: int) -> NDArray:
    """Return what `length` clients are called: integers from 0 as int64 ``(N,)``, or strings that are not empty."""
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.dtype.kind != "U" or flat.ndim != 1:
        return as_integers(where, array, length)
    if len(flat) != length:
        raise UserError(f"{where}: found {len(flat)} items for {length} images; there must be one for each image.")
    names, numbers = np.unique(flat, return_inverse=True)
    return np.array(as_names(where, names))[numbers]


def number_clients(
    where: str, train: NDArray | None, test: NDArray | None
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Count the clients from 0, in the order of what they are called.

    `where`: the data set's file or folder. `train`, `test`: what the client of each training and each test image is
    called, integers or strings, None if nothing says so. Returns the numbers of the clients of the training images and
    of the test images, and the clients' names. Raises `UserError` if a test image belongs to a client that has no
    training image.
    """
    if train is None:
        if test is not None:
            raise UserError(
                f"{where}: says whose the test images are (test_clients), but not whose the training images are. Add "
                "train_clients (docs/data.md)."
            )
        return None, None, None
    names, numbers = np.unique(train, return_inverse=True)
    called = tuple(str(name) for name in names)
    if test is None:
        return numbers.astype(np.int64), None, called
    unknown = np.unique(test[~np.isin(test, names)]) if test.dtype.kind == names.dtype.kind else test
    if len(unknown):
        raise UserError(
            f"{where}: test_clients: found {unknown[0].item()!r}, which is no client of train_clients. These have: "
            f"{', '.join(called[:20])}{', ...' if len(called) > 20 else ''}."
        )
    return numbers.astype(np.int64), np.searchsorted(names, test).astype(np.int64), called


def check_classes(
    where: str,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    names: tuple[str, ...] | None,
    basis: str = "the key classes",
) -> tuple[str, ...]:
    """Return the classes' names (their numbers where there are none) after checking the labels against them.

    `basis`: what gave the names. Raises `UserError` if a label is beyond the classes, there are fewer than two, or,
    without names, a label is missing or a class has no training image.
    """
    if names is None and (missing := int((train < 0).sum() + (test < 0).sum())):
        raise UserError(
            f"{where}: {missing} images have the label -1, which stands for none, but the classes have no names. Name "
            "all of them, also those without a label so far, in the key classes or in dataset.classes (such as "
            "dataset.classes=[cat,dog]); or, if -1 is a class, number the classes from 0."
        )
    count = len(names) if names is not None else int(train.max()) + 1
    for key, labels in (("train_labels", train), ("test_labels", test)):
        if labels.max() >= count:
            place = int(np.argmax(labels >= count))
            basis = basis if names is not None else "the training labels"
            raise UserError(
                f"{where}: {key}: found the label {int(labels[place])} at position {place}; "
                f"allowed: 0 to {count - 1}, the {count} classes of {basis}."
            )
    if count < 2:
        raise UserError(f"{where}: found {count} class; at least 2 are needed.")
    if names is None:
        present = np.unique(train)
        if len(present) != count:
            absent = int(np.argmax(present != np.arange(len(present))))
            raise UserError(
                f"{where}: train_labels: found no image of class {absent}, though labels reach to {count - 1}. "
                "Number the classes from 0 without gaps, or name them all in the key classes."
            )
        return tuple(str(label) for label in range(count))
    return names


def one_sided(classes: tuple[str, ...], train: NDArray[np.int64], test: NDArray[np.int64]) -> str | None:
    """Return, as a remark, the classes that have images in one split alone; None if there are none.

    Where labels are missing in the other split, a class may be among its images still, and is no remark.
    """
    trained, tested = set(train[train >= 0].tolist()), set(test[test >= 0].tolist())
    remarks = [
        f"class {', '.join(repr(classes[label]) for label in sorted(labels))}: {consequence}"
        for labels, other, consequence in (
            (trained - tested, test, "training images but no test image, so it is never tested"),
            (tested - trained, train, "test images but no training image, so it is never learnt"),
        )
        if labels and other.min() >= 0
    ]
    return "; ".join(remarks) or None


def check_annotation(source: str, name: str, train: NDArray[np.int64], test: NDArray[np.int64]) -> None:
    """Raise `UserError` unless ``annotation.source`` suits the labels of the data set `name`."""
    missing = int((train < 0).sum() + (test < 0).sum())
    if source == "oracle" and missing:
        raise UserError(
            f"annotation.source: found 'oracle', which reveals labels that the data have, but {missing:,} of "
            f"{len(train) + len(test):,} images of {name} have none. Set annotation.source=people to have them "
            "labelled (docs/annotate.md), or leave these images out."
        )
    if source == "people" and not missing:
        raise UserError(
            f"annotation.source: found 'people', but all {len(train) + len(test):,} images of {name} have a label "
            "already, so there is nothing to ask. Leave annotation.source out; or put images without labels into "
            "unlabelled/ next to train/, or give them the label -1 in an .npz file (docs/data.md)."
        )


def check_same_shape(where: str, train: tuple[int, ...], test: tuple[int, ...]) -> None:
    """Raise `UserError` unless training and test images agree in height, width and channels."""
    if train[1:] != test[1:]:
        raise UserError(
            f"{where}: found training images of {train[1:]} and test images of {test[1:]} (height, width, channels; of "
            "features 1, 1, D); they must agree."
        )

"""Downloads a published data set: all of it, or nothing."""

import contextlib
import io
import logging
import socket
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from kafal_pipeline.common.errors import UserError

STALLED_SECONDS = 60
KEPT = ("cifar-10-batches-py/*", "cifar-100-python/*", "*.mat", "*/raw/*-ubyte")
"""Files that are read later; the archives it came in are dropped."""

DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, HTTPException, zipfile.BadZipFile, tarfile.TarError, zlib.error)
"""Exceptions of networks, checksums and unpacking."""

logger = logging.getLogger(__name__)


def download(
    name: str, dataset: Callable[..., object], train: Mapping[str, Any], test: Mapping[str, Any], raw: Path
) -> None:
    """Download a data set into `raw` with torchvision's class `dataset`.

    It is downloaded, checked and unpacked in a folder next to its place and moved there at the end, so that a broken
    download leaves nothing behind that could be taken for the data.

    Raises `UserError` if the download fails or stalls.
    """
    raw.mkdir(parents=True, exist_ok=True)
    logger.info("Downloading %s to %s", name, raw)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=raw) as folder:
        try:
            with contextlib.ExitStack() as stack:
                # torchvision would wait for ever for a server that sends nothing.
                stack.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
                socket.setdefaulttimeout(STALLED_SECONDS)
                if not sys.stderr.isatty():  # no progress bars in log files
                    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
                for options in (train, test):
                    dataset(folder, download=True, **options)
        except DOWNLOAD_ERRORS as error:
            raise UserError(
                f"dataset.download: {name} could not be downloaded ({error}). Try again later, or put a file "
                f"{raw / name}.npz there and do without the download (docs/data.md)."
            ) from error
        for pattern in KEPT:
            for path in Path(folder).glob(pattern):
                place = raw / path.relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)

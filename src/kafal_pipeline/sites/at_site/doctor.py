"""Looks whether a site could take part: `python -m kafal_pipeline.site check site.yml`."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import check_writable
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.sites.at_site.images import open_images
from kafal_pipeline.sites.at_site.site_file import SiteFile, read_site

Look = Callable[[SiteFile], Iterator[str]]
"""Yields what is as it should be; raises UserError at what is not."""

SECONDS = 5.0
"""To wait for the server."""


def check(path: Path) -> int:
    """Print what was found of each part; return 1 if anything keeps the site from taking part, else 0."""
    site = read_site(path)
    print(f"ok       {path}: site {site.name}")
    failed = False
    for look in (_work, _images, _device, _flower, _files, _server):
        try:
            for line in look(site):
                print(f"ok       {line}")
        except UserError as error:
            print(f"MISSING  {error}")
            failed = True
    return int(failed)


def _work(site: SiteFile) -> Iterator[str]:
    check_writable(Path(site.work))
    parent = next(place for place in (Path(site.work), *Path(site.work).parents) if place.exists())
    yield f"work: {site.work}, {shutil.disk_usage(parent).free / 1e9:,.1f} GB free"


def _images(site: SiteFile) -> Iterator[str]:
    images = open_images(site, DatasetConfig())
    height, width = images.train_images.shape[1:3]
    labels = images.train_labels[images.train_labels >= 0]
    yield f"images: {len(images.train_labels):,} to train on, {len(images.test_labels):,} to test, {height} x {width}"
    counts = np.bincount(labels, minlength=images.num_classes)
    yield "classes: " + ", ".join(f"{name} {count}" for name, count in zip(images.classes, counts, strict=True))
    if site.annotation.source == "people":
        yield f"annotation: people label; {images.unlabelled:,} images have no label in the data"
    rare = [name for name, count in zip(images.classes, counts, strict=True) if 0 < count < site.min_count]
    if rare:
        yield f"min_count: {site.min_count}; fewer images than that have {', '.join(rare)}: counted as 0 for the server"


def _device(site: SiteFile) -> Iterator[str]:
    from kafal_pipeline.training.devices import choose_device

    yield f"device: {choose_device(site.device)}, {site.threads} threads"


def _flower(_: SiteFile) -> Iterator[str]:
    if find_spec("flwr") is None:
        raise UserError("Flower is not installed: pip install -r requirements-site.lock (docs/federation.md).")
    from importlib.metadata import version

    yield f"Flower: {version('flwr')}"


def _files(site: SiteFile) -> Iterator[str]:
    if site.server is None:
        raise UserError("server: is not in site.yml: address, certificate and key (docs/federation.md).")
    for key, what in (("certificate", "the server's operator sends it"), ("key", "python -m kafal_pipeline.site key")):
        path = Path(getattr(site.server, key))
        if not path.is_file():
            raise UserError(f"server.{key}: there is no file {path}; {what}.")
    if Path(site.server.key).stat().st_mode & 0o077:
        raise UserError(f"server.key: others may read {site.server.key}. Forbid it: chmod 600 {site.server.key}")
    yield "server: certificate and key are there"


def _server(site: SiteFile) -> Iterator[str]:
    import ssl

    if site.server is None or not Path(site.server.certificate).is_file():
        return
    host, _, port = site.server.address.rpartition(":")
    try:
        context = ssl.create_default_context(cafile=site.server.certificate)
        with (
            socket.create_connection((host.strip("[]"), int(port)), SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host.strip("[]")) as secure,
        ):
            yield f"server: {site.server.address} answers, {secure.version()}, with a certificate that holds"
    except ssl.SSLError as error:
        raise UserError(
            f"server.address: {site.server.address} shows a certificate that does not hold ({error})."
        ) from None
    except OSError as error:
        raise UserError(f"server.address: {site.server.address} cannot be reached ({error}).") from None

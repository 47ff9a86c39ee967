"""Answers the server's messages from a site's images, labels and state."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.common.files import read_json, write_json
from kafal_pipeline.common.locks import alone
from kafal_pipeline.config import Config, resolve
from kafal_pipeline.config.base import FOLDER_NAME
from kafal_pipeline.config.sections import DatasetConfig
from kafal_pipeline.data import ImageData
from kafal_pipeline.sites.at_site.images import levels_of, normalised_by, open_images
from kafal_pipeline.sites.at_site.kept import Kept
from kafal_pipeline.sites.at_site.people import People
from kafal_pipeline.sites.at_site.site_file import SiteFile
from kafal_pipeline.sites.at_site.work import Work
from kafal_pipeline.sites.listed import PROTOCOL, check
from kafal_pipeline.sites.packets import Packet, Value

SECTIONS = (
    *("seed", "cycles", "preset", "query", "update", "partition", "budget", "model", "federation", "training"),
    "query_training",
)
"""Parts of a trial's configuration that a site is sent, next to how images are sized."""


def package_version() -> str:
    """Return the version of this package, for both sides to compare."""
    try:
        return version("kafal_pipeline")
    except PackageNotFoundError:
        return "source"


class SiteService:
    """A site. It may be made anew for every message: all that it keeps lies in files."""

    def __init__(self, site: SiteFile) -> None:
        self.site = site
        self._open: tuple[str, Work] | None = None
        self._answers: dict[str, Callable[[Packet], Packet]] = {
            "join": self._join,
            "start": self._start,
            **{kind: self._of_work(kind) for kind in ("annotate", "train", "summary", "select", "evaluate")},
        }

    def answer(self, kind: str, request: Packet) -> Packet:
        """Return the answer to a message.

        Raises
        ------
        UserError, NotAllowed
            If the message is not listed, what it asks for is not allowed here, or the site's files are not as they
            should be.
        """
        check(kind, "request", request)
        Path(self.site.work).mkdir(mode=0o700, parents=True, exist_ok=True)
        with alone(Path(self.site.work) / ".lock"):
            answer = self._answers[kind](request)
        check(kind, "answer", answer)
        return answer

    def _join(self, request: Packet) -> Packet:
        if request.values["protocol"] != PROTOCOL or request.values["version"] != package_version():
            raise NotAllowed(
                f"this site runs version {package_version()} (messages {PROTOCOL}), the server "
                f"{request.values['version']} (messages {request.values['protocol']}): install the same on both."
            )
        _check_annotation(str(request.values["annotation"]), self.site)
        dataset = DatasetConfig.model_validate_json(str(request.values["dataset"]))
        images = open_images(self.site, dataset)
        height, width = images.train_images.shape[1:3]
        values: dict[str, Value] = {
            "name": self.site.name,
            "classes": list(images.classes),
            **{"height": int(height), "width": int(width), "channels": images.channels},
            **{"train": len(images.train_labels), "test": len(images.test_labels)},
        }
        fixed = dataset.mean is not None and dataset.std is not None
        return Packet(values, {} if fixed else {"levels": levels_of(images)})

    def _start(self, request: Packet) -> Packet:
        values = request.values
        config = _config(str(values["config"]), self.site)
        images = open_images(self.site, config.dataset)
        if list(images.classes) != values["classes"]:
            raise NotAllowed(f"this site has the classes {list(images.classes)}, the server {values['classes']}.")
        folder = self._folder(str(values["run"]))
        said = {key: values[key] for key in ("config", "client", "classes", "mean", "std")}
        path = folder / "run.json"
        if path.exists() and read_json(path, f"Remove {folder}.")["said"] != said:
            raise NotAllowed(
                f"the trial {values['run']} was begun here with other parameters or sites. Begin one with another "
                f"name, or remove {folder}."
            )
        write_json(path, {"said": said}, indent=2)
        self._open = None
        return Packet({"samples": len(images.train_labels)})

    def _of_work(self, kind: str) -> Callable[[Packet], Packet]:
        return lambda request: getattr(self._work(str(request.values["run"])), kind)(request)

    def _work(self, run: str) -> Work:
        """Return the trial of that name, opened."""
        if self._open is not None and self._open[0] == run:
            return self._open[1]
        folder = self._folder(run)
        try:
            said = read_json(folder / "run.json", f"Remove {folder}, and start the trial again.")["said"]
        except FileNotFoundError:
            raise NotAllowed(f"the trial {run} has not been started at this site.") from None
        config = _config(said["config"], self.site)
        images = normalised_by(open_images(self.site, config.dataset), said["mean"], said["std"])
        kept = Kept(folder / "kept", _owner(said, images), said["client"], len(images.train_labels))
        people = People(self.site, run, config, images, kept) if config.annotation.source == "people" else None
        work = Work(self.site, config, images, kept, people)
        self._open = (run, work)
        return work

    def _folder(self, run: str) -> Path:
        if not re.match(FOLDER_NAME, run):
            raise NotAllowed(f"the trial has the name {run!r}; allowed: letters, digits, points and hyphens.")
        return Path(self.site.work) / "runs" / run


def sent(config: Config) -> str:
    """Return what of a trial's configuration a site is sent, as JSON."""
    values = config.model_dump(mode="json")
    dataset = {key: value for key, value in values["dataset"].items() if key in ("image_size", "resize", "mean", "std")}
    classes = config.dataset.classes
    return json.dumps(
        {
            **{key: values[key] for key in SECTIONS},
            "dataset": {**dataset, "name": "site", "classes": classes},
            "annotation": {"source": config.annotation.source},
        },
        sort_keys=True,
    )


def _config(text: str, site: SiteFile) -> Config:
    """Return the configuration of a trial as this site computes it; raises NotAllowed where the site forbids it."""
    values: dict[str, Any] = json.loads(text)
    if unknown := sorted(values.keys() - {*SECTIONS, "dataset", "annotation"}):
        raise NotAllowed(f"the configuration has {unknown[0]!r}, which no site takes.")
    _check_annotation(values["annotation"]["source"], site)
    values["annotation"] = site.annotation.model_dump()
    values["training"] = {**values["training"], "device": site.device, "processes": 1}
    config = resolve(values)
    named = {"query": config.query.name, "update": config.update.name, "model": config.model.name}
    options = json.dumps([config.query.options, config.update.options, config.model.options])
    paths = [
        name for name in (*named.values(), *re.findall(r'"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)"', options)) if "." in name
    ]
    for name in paths:
        if name not in site.allow.classes:
            raise NotAllowed(
                f"the server names the class {name!r}, which is not part of this package. To allow it, install it at "
                "this site and add it to allow.classes in site.yml."
            )
    if config.model.pretrained is not None:
        raise NotAllowed("model.pretrained: sites take no file of weights so far.")
    return config


def _check_annotation(source: str, site: SiteFile) -> None:
    if source != site.annotation.source:
        raise NotAllowed(
            f"annotation.source: found {source!r} at the server, and {site.annotation.source!r} in site.yml. Write the "
            "same into both."
        )


def _owner(said: dict[str, Any], images: ImageData) -> str:
    """Return a digest of what a site's state depends on: the trial, and the images."""
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    assert images.folder is not None
    arrays = read_json(images.folder / "meta.json", "Remove the folder.")["arrays"]
    digest.update(json.dumps({name: item["sha256"] for name, item in arrays.items()}, sort_keys=True).encode())
    return digest.hexdigest()

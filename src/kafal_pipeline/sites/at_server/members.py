"""Who takes part: names, numbers and classes of the sites, and what all of them normalise by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData
from kafal_pipeline.data.image_batches import Levels
from kafal_pipeline.sites.at_server.answers import problem_with
from kafal_pipeline.sites.at_site.service import package_version
from kafal_pipeline.sites.listed import PROTOCOL
from kafal_pipeline.sites.packets import Carrier, Packet


@dataclass(frozen=True)
class Members:
    """The sites of a trial; a client's number is its place in `names`, which are sorted."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    height: int
    width: int
    channels: int
    sizes: tuple[int, ...]
    mean: list[float]
    std: list[float]

    def images(self) -> ImageData:
        """Return a data set without images: their shape, the classes and the sites' names, for what asks for these."""
        none = np.empty((0, self.height, self.width, self.channels), dtype=np.uint8)
        nobody = np.empty(0, dtype=np.int64)
        mean, std = np.array(self.mean), np.array(self.std)
        return ImageData(
            *("sites", none, nobody, none, nobody, self.classes, mean, std), nobody, nobody, client_names=self.names
        )


def gather(carrier: Carrier, config: Config) -> Members:
    """Ask the sites that are there who they are.

    Raises
    ------
    UserError
        If they are not as many as ``partition.clients``, or do not go together.
    """
    names = sorted(carrier.sites())
    if len(names) != config.partition.clients:
        raise UserError(
            f"partition.clients: found {config.partition.clients}, but these sites are there: "
            f"{', '.join(names) or 'none'}."
        )
    dataset = config.dataset.model_dump_json(include={"image_size", "resize", "mean", "std", "classes"})
    source = config.annotation.source
    asked = Packet({"protocol": PROTOCOL, "version": package_version(), "dataset": dataset, "annotation": source})
    said: dict[str, Packet] = {}
    for name, answer in carrier.ask("join", dict.fromkeys(names, asked), "joining"):
        problem = problem_with("join", answer)
        if problem is not None or not isinstance(answer, Packet):
            raise UserError(f"site {name}: {problem}")
        said[name] = answer
    values = {name: said[name].values for name in names}
    for key in ("classes", "height", "width", "channels"):
        _check_same({name: values[name][key] for name in names}, key)
    first = values[names[0]]
    mean, std = _mean_and_std(said, int(str(first["channels"])), config)
    classes = first["classes"]
    assert isinstance(classes, list)
    return Members(
        tuple(names),
        tuple(map(str, classes)),
        **{key: int(str(first[key])) for key in ("height", "width", "channels")},
        sizes=tuple(int(str(values[name]["train"])) for name in names),
        mean=mean,
        std=std,
    )


def _check_same(values: Mapping[str, object], key: str) -> None:
    (first, expected), *others = values.items()
    for name, found in others:
        if found != expected:
            remedy = "Set dataset.image_size" if key in ("height", "width") else "Name all in classes of each site.yml"
            raise UserError(f"site {name}: found the {key} {found}, but site {first} has {expected}. {remedy}.")


def _mean_and_std(said: Mapping[str, Packet], channels: int, config: Config) -> tuple[list[float], list[float]]:
    if config.dataset.mean is not None and config.dataset.std is not None:
        return list(config.dataset.mean), list(config.dataset.std)
    levels = Levels(channels)
    for name, packet in said.items():
        counts: Any = packet.arrays.get("levels", {}).get("counts")
        if counts is None or counts.shape != levels.counts.shape or counts.dtype.kind not in "iu" or (counts < 0).any():
            raise UserError(f"site {name}: its levels are no counts of {channels} channels.")
        levels.counts += counts.astype(np.int64)
    mean, std = levels.mean_and_std()
    return config.dataset.mean or mean, config.dataset.std or std

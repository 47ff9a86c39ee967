"""Reads `site.yml`, the whole configuration of a site."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config.base import ClassName, Fraction, Number, Section, Whole
from kafal_pipeline.config.labels import AnnotationConfig
from kafal_pipeline.config.resolve import explained

NAME = r"^[A-Za-z][A-Za-z0-9._-]{0,60}$"
"""Of a site: it begins with a letter, so that names are sorted alike everywhere."""


class Allow(Section):
    """What a site lets happen: `classes` are dotted paths of Python classes that the server may name."""

    classes: list[str] = []


class Annotation(Section):
    """Who labels at the site; the keys mean what they mean in the section `annotation` of a simulation."""

    source: Literal["oracle", "people"] = "oracle"
    complete: Fraction = 1.0
    refill: Number = Field(default=0.0, ge=0, le=1)
    annotators: Whole = Field(default=1, ge=1, le=100)
    file_names: Literal["opaque", "original"] = "opaque"

    def config(self) -> AnnotationConfig:
        """Return that section."""
        return AnnotationConfig(**self.model_dump())


class Server(Section):
    """How the site reaches the server.

    `address` is ``host:port``; `certificate` the authority's, `key` the site's own. `port` is where the site's two
    processes talk to each other, on this machine alone.
    """

    address: str = Field(pattern=r"^\S+:\d{1,5}$")
    certificate: str = Field(default="ca.pem", min_length=1)
    key: str = Field(default="site.key", min_length=1)
    port: Whole = Field(default=9094, ge=1024, le=65_535)


class SiteFile(Section):
    """A site.

    `name` is what the server knows the site by. `images` is its folder of images, ``train/<class>/`` and
    ``test/<class>/`` (docs/data.md), `work` the folder of what the site keeps; both are relative to the file.
    `classes` names the classes in their order, where folders do not. `device` and `threads` are what it computes with;
    one thread gives the same bits as a simulation. `min_count` is the least number of images that a count or sum by
    class may stand for: smaller ones leave as 0. `message_limit` is the size of the largest message that the
    site takes, in MB. `annotation` says who labels. `test_share` is the share of the images
    that are set aside to test with, where there is no folder ``test``. Without `server` the site can be checked, and
    not run.
    """

    name: str = Field(pattern=NAME)
    images: str = Field(min_length=1)
    work: str = Field(default="work", min_length=1)
    classes: list[ClassName] | None = Field(default=None, min_length=2, max_length=10_000)
    device: str = Field(default="cpu", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: Whole = Field(default=1, ge=1, le=256)
    min_count: Whole = Field(default=5, ge=1)
    message_limit: Number = Field(default=1000.0, gt=0)
    test_share: Number | None = Field(default=None, gt=0, lt=1)
    annotation: Annotation = Annotation()
    allow: Allow = Allow()
    server: Server | None = None


def read_site(path: Path) -> SiteFile:
    """Return what a `site.yml` says, with its folders as absolute paths.

    Raises
    ------
    UserError
        If it is not there, no YAML, or says what is not allowed: every problem with its key.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file. Copy it from docs/federation.md, and fill it in.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:200]}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: found no keys; name, images and the others (docs/federation.md).")
    try:
        site = SiteFile.model_validate(content)
    except ValidationError as error:
        problems = explained(error, SiteFile)
        raise UserError("\n".join(f"{path}: {key}: {sentence}" for key, sentence in problems)) from None

    def absolute(section: Any, *keys: str) -> Any:
        return section.model_copy(update={key: str((path.parent / getattr(section, key)).absolute()) for key in keys})

    site = absolute(site, "images", "work")
    server = None if site.server is None else absolute(site.server, "certificate", "key")
    return site.model_copy(update={"server": server})

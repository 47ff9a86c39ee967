"""Requests: which images of a client people are to label in a cycle. A request is a folder with a ``manifest.json``."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from kafal_pipeline.annotation.verdicts import COUNTED, DECLINED, OPEN, Verdict
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import read_json

MANIFEST = "manifest.json"
FORMAT = 1

REFILL = "refill_"
"""Beginning of the names of folders that ask for images in reserve; the number of all such images by then follows."""

Part = Literal["train", "test"]


@dataclass(frozen=True)
class Asked:
    """One image that is asked for.

    `sample`: its opaque id. `part`, `row`: where it stands in the data set's arrays. `file`: its path in the dataset
    folder, None where images are no files. `rank`: 0 is asked for first.
    """

    sample: str
    part: Part
    row: int
    file: str | None
    rank: int


@dataclass(frozen=True)
class Request:
    """What is asked of the people of one client in one cycle, in the order of `Asked.rank`.

    `run`: the run's name, ``<data set>/<query>-<update>/seed_<n>``. `reserve`: images that are asked for in the place
    of those that people decline, the first one first.
    """

    run: str
    cycle: int
    client: int
    client_name: str | None
    classes: tuple[str, ...]
    samples: tuple[Asked, ...]
    reserve: tuple[Asked, ...] = ()

    @cached_property
    def query(self) -> str:
        """Digest of the query: the same run, cycle, client, classes and images in the same order have the same one."""
        samples = [[asked.sample for asked in part] for part in (self.samples, self.reserve)]
        content = [self.run, self.cycle, self.client, self.classes, *samples]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Its folder's path in that of the run's requests: ``cycle_<c>/client_<k>``."""
        return f"cycle_{self.cycle:02d}/client_{self.client:03d}"

    @property
    def who(self) -> str:
        """The client as messages have it."""
        return f"client {self.client}" if self.client_name is None else f"client {self.client} ({self.client_name})"

    @property
    def all(self) -> tuple[Asked, ...]:
        """All images that it may ask for: answers to these are answers to it."""
        return self.samples + self.reserve

    def asked(self, verdicts: Mapping[str, Verdict]) -> list[Asked]:
        """Return the images that it asks for now: as many in reserve as others were declined."""
        asked = list(self.samples)
        declined = sum(_outcome(verdicts, item) in DECLINED for item in asked)
        for item in self.reserve:
            if not declined:
                break
            asked.append(item)
            declined -= _outcome(verdicts, item) not in DECLINED
        return asked

    def counts(self, verdicts: Mapping[str, Verdict]) -> Counter[str]:
        """Return how many of its images have each outcome, ``open`` included."""
        return Counter(_outcome(verdicts, asked) for asked in self.asked(verdicts))

    def missing(self, verdicts: Mapping[str, Verdict]) -> list[Asked]:
        """Return the images that are still to be answered, conflicts included."""
        return [asked for asked in self.asked(verdicts) if _outcome(verdicts, asked) not in COUNTED]

    def place(self, verdicts: Mapping[str, Verdict]) -> str:
        """Return where the files of what is missing lie: in the request's folder, or in those of its reserve."""
        missing = {asked.sample for asked in self.missing(verdicts)}
        own, reserve = (any(asked.sample in missing for asked in part) for part in (self.samples, self.reserve))
        return self.name if not reserve else f"{self.name} and its {REFILL}*" if own else f"{self.name}/{REFILL}*"

    def is_done(self, verdicts: Mapping[str, Verdict], complete: float) -> bool:
        """Tell whether the share `complete` of what it asks for is answered: of training and of test images each.

        Test images come first. Counted together, they alone might be enough, with nothing to train on.
        """
        asked = Counter(item.part for item in self.asked(verdicts))
        missing = Counter(item.part for item in self.missing(verdicts))
        return all(count - missing[part] >= math.ceil(round(complete * count, 6)) for part, count in asked.items())

    def manifest(self, files: bool) -> dict[str, object]:
        """Return what the file `MANIFEST` holds; `files`: whether it names the images' files, which may name patients.

        Whoever gets the request's folder gets the manifest too.
        """
        shown = self if files else replace(self, samples=_nameless(self.samples), reserve=_nameless(self.reserve))
        return {"format": FORMAT, "query": self.query, **asdict(shown)}


def _nameless(samples: tuple[Asked, ...]) -> tuple[Asked, ...]:
    return tuple(replace(asked, file=None) for asked in samples)


def _outcome(verdicts: Mapping[str, Verdict], asked: Asked) -> str:
    return verdicts.get(asked.sample, OPEN).outcome


def read_request(folder: Path) -> Request:
    """Return the request in a folder.

    Raises `UserError` if its manifest is damaged or edited; FileNotFoundError if there is none.
    """
    path = folder / MANIFEST
    advice = "Remove the folder and give the command of the run again: it is written again, and no label is lost."
    content = read_json(path, advice)
    try:
        request = Request(
            **{key: content[key] for key in ("run", "cycle", "client", "client_name")},
            classes=tuple(content["classes"]),
            samples=tuple(Asked(**asked) for asked in content["samples"]),
            reserve=tuple(Asked(**asked) for asked in content["reserve"]),
        )
        if content["format"] != FORMAT or content["query"] != request.query:
            raise ValueError("its digest is another")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}). {advice}") from None
    return request


def refills(folder: Path) -> int:
    """Return how many images in reserve the files in a request's folder ask for."""
    return max((int(path.name.removeprefix(REFILL)) for path in folder.glob(f"{REFILL}*")), default=0)


def latest(requests: Sequence[Request]) -> list[Request]:
    """Return those of the latest cycle: what is open of earlier ones is asked for in these again."""
    last = max((request.cycle for request in requests), default=0)
    return [request for request in requests if request.cycle == last]


def read_requests(folder: Path) -> list[Request]:
    """Return all requests of a run, by cycle and client; `folder`: that of the run's requests."""
    found = sorted(folder.glob(f"cycle_*/client_*/{MANIFEST}"))
    return sorted((read_request(path.parent) for path in found), key=lambda request: (request.cycle, request.client))

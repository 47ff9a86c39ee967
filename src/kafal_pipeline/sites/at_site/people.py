"""Labels that a site's people give: what they are asked, on the site's own disk, and the pools of their answers."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.annotation.desk import Desk
from kafal_pipeline.annotation.pools import (
    ANNOTATIONS,
    annotated_pool,
    first_choice,
    labels_of_tests,
    later_choice,
    unlabelled_pool,
)
from kafal_pipeline.common.errors import NotAllowed, UserError, Waiting
from kafal_pipeline.common.files import read_json, write_json
from kafal_pipeline.config import AnnotationConfig, Config
from kafal_pipeline.data import ImageData
from kafal_pipeline.models.state import Arrays
from kafal_pipeline.sites.at_site.kept import Kept
from kafal_pipeline.sites.at_site.site_file import SiteFile

if TYPE_CHECKING:
    import pandas as pd

CLIENT = 0
"""The site's number at its own desk: whatever number a trial gives it, its answers lie in one file."""

COLUMNS = {"sample": "sample", "label": "label", "since": "labelled_in_cycle", "asked": "asked_in_cycle"}
"""Names of a pool's columns as the site keeps them, and as tables of pools have them."""

logger = logging.getLogger(__name__)


def requests_of(site: SiteFile) -> Path:
    """Return the folder of what people are asked: one folder for each trial."""
    return Path(site.work) / "annotation" / "requests"


def desk_of(site: SiteFile, run: str, images: ImageData, annotation: AnnotationConfig | None = None) -> Desk:
    """Return the desk of a trial at a site; all trials share the answers."""
    answers = Path(site.work) / "annotation" / "answers"
    section = site.annotation.config() if annotation is None else annotation
    return Desk(run, requests_of(site) / run, answers, images, section, Path(site.images), (site.name,))


class People:
    """The labels of a trial at a site whose people label."""

    def __init__(self, site: SiteFile, run: str, config: Config, images: ImageData, kept: Kept) -> None:
        self.site, self.run, self.config, self.images, self.kept = site, run, config, images, kept
        self._tables = Path(site.work) / "runs" / run / "annotations"

    def annotate(self, cycle: int) -> int:
        """Take a cycle's labels once there are enough; return how many images still wait, after asking for them."""
        latest = self.kept.people(self.config.cycles)
        if latest is not None and latest[0] >= cycle:
            return 0  # what people change from now on counts from the next cycle on
        desk = desk_of(self.site, self.run, self.images)
        try:
            self._take(cycle, desk)
        except Waiting:
            verdicts = desk.verdicts()
            missing = sum(len(found.missing(verdicts)) for found in desk.requests() if found.cycle == cycle)
            logger.info("cycle %d waits for labels of %d images: %s", cycle, missing, desk.folder)
            return missing
        return 0

    def settle(self, cycle: int) -> None:
        """Take what people have answered of a cycle so far; what is open is asked for again.

        Raises NotAllowed if the site does not even have its first labels.
        """
        if self.kept.annotated(cycle):
            return
        if self.kept.people(cycle) is None:
            raise NotAllowed("it waits for its first labels.")
        whatever = self.site.annotation.config().model_copy(update={"complete": 0.0})
        self._take(cycle, desk_of(self.site, self.run, self.images, whatever))

    def labelled(self, cycle: int) -> int:
        """Return the number of labels as of a cycle."""
        return 0 if self.kept.people(cycle) is None else len(self.kept.pool(cycle).labelled)

    def tests(self) -> NDArray[np.int64]:
        """Return the labels of the test images by now, -1 where there is none."""
        found = self.kept.people(self.config.cycles)
        return self.images.test_labels if found is None else np.asarray(found[1]["tests"], dtype=np.int64)

    def _take(self, cycle: int, desk: Desk) -> None:
        """Make and keep the pool of a cycle; raises `Waiting` where too few of its labels are there."""
        found = self.kept.people(cycle - 1)
        if found is None:
            every = [np.arange(len(self.images.train_labels))]
            pool, before = unlabelled_pool(every, self.images.train_labels), None
            choice = first_choice(every, self.images, self.config, [self.kept.client])
        else:
            pool, before = _table(found[1]), self._annotations(found[0])
            choice = later_choice(pool, _queried(self.kept.choice(cycle)), self.config)
        annotations = self._answered(cycle, desk, choice, before)
        pool = annotated_pool(pool, annotations, cycle)
        if not (pool["label"] >= 0).any():
            raise UserError("annotation: people have declined every training image, so there is nothing to train on.")
        columns: Arrays = {name: pool[column].to_numpy(np.int64) for name, column in COLUMNS.items()}
        self._keep_annotations(cycle, annotations)
        self.kept.keep_people(cycle, {**columns, "tests": labels_of_tests(self.images, annotations)})
        self.kept.save()

    def _answered(self, cycle: int, desk: Desk, choice: pd.DataFrame, before: pd.DataFrame | None) -> pd.DataFrame:
        """Return what the desk has; what is wrong there may name images and labels, and stays at the site."""
        try:
            return desk.annotations(cycle, choice, before)
        except Waiting:
            raise
        except UserError as error:
            logger.error("cycle %d, labels: %s", cycle, error)
            raise NotAllowed(
                "something is wrong with what its people are asked or answer; its log says what."
            ) from None

    def _file(self, cycle: int) -> Path:
        return self._tables / f"cycle_{cycle:05d}.json"

    def _annotations(self, cycle: int) -> pd.DataFrame:
        import pandas as pd

        columns = read_json(self._file(cycle), "Remove the trial's folder, and start the trial again.")
        return pd.DataFrame(columns).astype(ANNOTATIONS)

    def _keep_annotations(self, cycle: int, annotations: pd.DataFrame) -> None:
        columns = annotations.to_dict("list")
        columns["seconds"] = [None if math.isnan(seconds) else seconds for seconds in columns["seconds"]]
        write_json(self._file(cycle), columns)


def _table(kept: Arrays) -> pd.DataFrame:
    """Return a pool that the site has kept as a table; who labelled it stays in the answers."""
    import pandas as pd

    columns = {column: np.asarray(kept[name]) for name, column in COLUMNS.items()}
    return pd.DataFrame({"client": CLIENT, **columns}).assign(annotator="", labelled_at="")


def _queried(samples: NDArray[np.int64]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"client": CLIENT, "sample": samples, "rank": np.arange(len(samples))})

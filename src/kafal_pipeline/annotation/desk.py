"""The desk of one run: it writes down what people are to label, and gathers what they have answered."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kafal_pipeline.annotation.answers import AnswerStore
from kafal_pipeline.annotation.requests import Request, read_requests
from kafal_pipeline.annotation.verdicts import Verdict, verdicts
from kafal_pipeline.config import AnnotationConfig
from kafal_pipeline.data.images import ImageData


class Desk:
    """What people are asked in one run, and what they say.

    Parameters
    ----------
    run
        The run's name, ``<data set>/<query>-<update>/seed_<n>``.
    requests, answers
        The folder of this run's requests, and that of the data set's answers, which its runs share.
    images
        The data set: its ids, its classes, and pixels where images are no files.
    config
        The section ``annotation``.
    source
        The dataset folder that the images' files are relative to; None where images are no files.
    """

    def __init__(
        self, run: str, requests: Path, answers: Path, images: ImageData, config: AnnotationConfig, source: Path | None
    ) -> None:
        self.run, self.folder, self.images, self.config, self.source = run, requests, images, config, source
        self.store = AnswerStore(answers)

    def requests(self) -> list[Request]:
        """Return all that the run has asked so far, by cycle and client."""
        return read_requests(self.folder)

    def verdicts(self) -> dict[str, Verdict]:
        """Return what holds of each image by now, by its id."""
        return verdicts(self.store.read_all(), self.config.annotators)

    def ask(self, requests: Iterable[Request]) -> None:
        """Write requests to disk, those that are not there already in the same words."""
        raise NotImplementedError

"""The desk of one run: it writes down what people are to label, and gathers what they have answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kafal_pipeline.annotation.answers import AnswerStore
from kafal_pipeline.annotation.exchange.write import export
from kafal_pipeline.annotation.pools import ANNOTATIONS
from kafal_pipeline.annotation.requests import (
    MANIFEST,
    REFILL,
    Asked,
    Part,
    Request,
    read_request,
    read_requests,
    refills,
)
from kafal_pipeline.annotation.verdicts import COUNTED, OPEN, Verdict, verdicts
from kafal_pipeline.common.errors import UserError, Waiting, did_you_mean
from kafal_pipeline.common.files import remove, replacing_folder, write_json
from kafal_pipeline.config import AnnotationConfig
from kafal_pipeline.data.images import ImageData
from kafal_pipeline.data.pools import UNLABELLED

if TYPE_CHECKING:
    import pandas as pd

CLIENTS = 10
"""Clients that a message lists; of more it gives the number."""


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
    client_names
        What the data call the federation's clients, where they do.
    options
        Those of the command line that name the run, led by a space: commands about it take them too.
    """

    def __init__(
        self,
        run: str,
        requests: Path,
        answers: Path,
        images: ImageData,
        config: AnnotationConfig,
        source: Path | None,
        client_names: tuple[str, ...] | None = None,
        options: str = "",
    ) -> None:
        self.run, self.folder, self.images, self.config, self.source = run, requests, images, config, source
        self.client_names, self.options, self.store = client_names, options, AnswerStore(answers)

    def requests(self) -> list[Request]:
        """Return all that the run has asked so far, by cycle and client."""
        return read_requests(self.folder)

    def verdicts(self) -> dict[str, Verdict]:
        """Return what holds of each image by now, by its id."""
        return verdicts(self.store.read_all(), self.config.annotators)

    def annotations(self, cycle: int, choice: pd.DataFrame, before: pd.DataFrame | None) -> pd.DataFrame:
        """Return the annotations of a run by now, once enough of what a cycle asks for is answered.

        `choice`: what the cycle asks for. `before`: the annotations of the cycle before; what was open then comes
        first. Both tables: `kafal_pipeline.annotation.pools`. Raises `Waiting` where labels are missing, after they
        have been asked for on disk.
        """
        verdicts, requests = self.verdicts(), self._requests_of(cycle, choice, before)
        for later in self.requests():  # of a run that has started again since
            if later.cycle > cycle:
                self._set_aside(self.folder / later.name)
        self.ask(requests)
        if short := [request for request in requests if not request.is_done(verdicts, self.config.complete)]:
            raise Waiting(self._message(short, verdicts))
        return self._table(requests, verdicts, before)

    def ask(self, requests: Iterable[Request]) -> None:
        """Write requests to disk; one that is there already is left alone, since people may be filling in its files.

        What a request asks for in the place of declined images goes to a folder of its own in it.
        """
        verdicts = self.verdicts()
        for request in requests:
            folder = self.folder / request.name
            if not (folder / MANIFEST).exists() or read_request(folder).query != request.query:
                self._set_aside(folder)
                with replacing_folder(folder) as temporary:
                    write_json(
                        temporary / MANIFEST, request.manifest(files=self.config.file_names == "original"), indent=1
                    )
                    self._export(request, request.samples, temporary, request.name)
            refilled = request.asked(verdicts)[len(request.samples) :]
            written = refills(folder)
            if len(refilled) > written:
                name = f"{request.name}/{REFILL}{len(refilled):03d}"
                with replacing_folder(self.folder / name) as temporary:
                    self._export(request, refilled[written:], temporary, name)

    def _export(self, request: Request, samples: Sequence[Asked], folder: Path, name: str) -> None:
        place = f"{self.run}/{name}"
        export(request, samples, folder, self.images, self.source, self.config.file_names, place)

    def _set_aside(self, folder: Path) -> None:
        """Keep a request that is no longer asked: its files may hold labels that were not imported."""
        if (folder / MANIFEST).exists():
            aside = folder.parent / "superseded" / f"{folder.name}-{read_request(folder).query}"
            aside.parent.mkdir(exist_ok=True)
            remove(aside)
            folder.replace(aside)

    def _requests_of(self, cycle: int, choice: pd.DataFrame, before: pd.DataFrame | None) -> list[Request]:
        """Return a cycle's requests, one for each client that is asked for something."""
        carried: list[tuple[int, Part, int]] = []
        if before is not None:
            still = before[~before["outcome"].isin(COUNTED)].drop_duplicates("id")
            still = still.sort_values(["client", "part", "asked_in_cycle"], kind="stable")
            carried = list(still[["client", "part", "sample"]].itertuples(index=False, name=None))
        ordered = choice.sort_values(["client", "part", "rank"], kind="stable")  # "test" comes before "train"
        requests = []
        for client in sorted({*ordered["client"].tolist(), *(client for client, _, _ in carried)}):
            mine = ordered[ordered["client"] == client]
            first = [(part, sample) for owner, part, sample in carried if owner == client]
            kept, reserve = (
                list(rows[["part", "sample"]].itertuples(index=False, name=None))
                for rows in (mine[~mine["reserve"]], mine[mine["reserve"]])
            )
            asked = [
                self._asked(part, int(sample), rank) for rank, (part, sample) in enumerate([*first, *kept, *reserve])
            ]
            number = len(first) + len(kept)
            name = self.client_names[client] if self.client_names is not None else None
            classes, ends = self.images.classes, (tuple(asked[:number]), tuple(asked[number:]))
            requests.append(Request(self.run, cycle, int(client), name, classes, *ends))
        return requests

    def _asked(self, part: Part, row: int, rank: int) -> Asked:
        ids, files = (getattr(self.images, f"{part}_{name}") for name in ("ids", "files"))
        return Asked(str(ids[row]), part, row, None if files is None else str(files[row]), rank)

    def _table(
        self, requests: Sequence[Request], verdicts: Mapping[str, Verdict], before: pd.DataFrame | None
    ) -> pd.DataFrame:
        """Return annotations: of all that was asked before, as answers are now, and of what these requests ask for."""
        import pandas as pd

        classes = {name: number for number, name in enumerate(self.images.classes)}

        def number_of(sample: str, label: str | None) -> int:
            if label is not None and label not in classes:
                raise UserError(
                    f"{self.store.folder}: image {sample} is labelled {label!r}, which is no class of the data set by "
                    f"now. {did_you_mean(label, classes)} Name it in dataset.classes, or label the image again."
                )
            return UNLABELLED if label is None else classes[label]

        rows: list[dict[str, Any]] = []
        for client, cycle, item in self._all_asked(requests, verdicts, before):
            verdict = verdicts.get(item.sample, OPEN)
            of_image = {
                "client": client,
                "part": item.part,
                "sample": item.row,
                "id": item.sample,
                "file": item.file or "",
                "asked_in_cycle": cycle,
                "outcome": verdict.outcome,
                "verdict": number_of(item.sample, verdict.label),
            }
            nobody = {
                "annotator": "",
                "status": "open",
                "label": UNLABELLED,
                "time": "",
                "seconds": np.nan,
                "source": "",
            }
            rows += [
                {
                    **of_image,
                    **{name: getattr(answer, name) for name in ("annotator", "status", "time", "source")},
                    "label": number_of(answer.sample, answer.label),
                    "seconds": np.nan if answer.seconds is None else answer.seconds,
                }
                for answer in verdict.answers
            ] or [{**of_image, **nobody}]
        return pd.DataFrame(rows, columns=list(ANNOTATIONS)).astype(ANNOTATIONS)

    def _all_asked(
        self, requests: Sequence[Request], verdicts: Mapping[str, Verdict], before: pd.DataFrame | None
    ) -> Iterator[tuple[int, int, Asked]]:
        """Yield each image that was asked for, once, with its client and the cycle in which it was first."""
        seen: set[str] = set()
        if before is not None:
            for row in before.drop_duplicates("id").itertuples():
                seen.add(str(row.id))
                yield int(row.client), int(row.asked_in_cycle), self._asked(row.part, int(row.sample), 0)  # type: ignore[arg-type]
        for request in requests:
            for item in request.asked(verdicts):
                if item.sample not in seen:
                    yield request.client, request.cycle, item

    def _message(self, short: Sequence[Request], verdicts: Mapping[str, Verdict]) -> str:
        """Return what is missing, where the files lie, and the ways to label."""
        missing = [len(request.missing(verdicts)) for request in short]
        here = Path.cwd()
        folder = self.folder.relative_to(here) if self.folder.is_relative_to(here) else self.folder
        conflicts = sum(request.counts(verdicts)["conflict"] for request in short)
        lines = [
            f"  {request.who}: {count} of {len(request.asked(verdicts))} to label, {folder / request.place(verdicts)}"
            for request, count in list(zip(short, missing, strict=True))[:CLIENTS]
        ]
        if len(short) > CLIENTS:
            lines.append(f"  and {len(short) - CLIENTS} more clients")
        disputed = f"; in {conflicts} of them people disagree, and one more is asked" if conflicts else ""
        return "\n".join(
            [
                f"Cycle {short[0].cycle} waits for labels of {sum(missing)} images{disputed}:",
                *lines,
                "Label them",
                f"  on a page         kedro run --pipeline annotate{self.options}",
                "  in a spreadsheet  fill in to_label.csv, then",
                f"                    kedro run --pipeline annotate_import{self.options} --params annotation.file=PATH",
                "  in another tool   Label Studio or CVAT (docs/annotate.md), and import its export in the same way",
                "Then give the same command again: the run resumes. What is done by now:",
                f"                    kedro run --pipeline annotate_status{self.options}",
            ]
        )

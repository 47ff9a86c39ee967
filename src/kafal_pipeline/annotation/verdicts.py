"""The verdict on each image from what people said of it, by majority; and how far they agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kafal_pipeline.annotation.answers import Answer, latest_of

Outcome = Literal["labelled", "skipped", "unusable", "unknown_class", "conflict", "open"]

COUNTED: tuple[Outcome, ...] = ("labelled", "skipped", "unusable", "unknown_class")
"""Outcomes by which a question is answered; a conflict waits for one more person, as what is open waits."""


DECLINED: tuple[Outcome, ...] = ("skipped", "unusable", "unknown_class")
"""Those of `COUNTED` that bring no label: the image leaves the pool."""


@dataclass(frozen=True)
class Verdict:
    """What holds of an image: `label` is its class where it is labelled; `answers` are the latest of each person."""

    outcome: Outcome
    label: str | None = None
    answers: tuple[Answer, ...] = ()

    @property
    def annotators(self) -> str:
        """The people who say what holds, in order, with commas in between."""
        return ", ".join(
            sorted(a.annotator for a in self.answers if a.status == self.outcome and a.label == self.label)
        )

    @property
    def time(self) -> str:
        """When the last of them said so; empty where nobody has."""
        agreed = [a.time for a in self.answers if a.status == self.outcome and a.label == self.label]
        return max(agreed, default="")


OPEN = Verdict("open")
"""The verdict on an image that nobody has answered."""


def verdicts(answers: Iterable[Answer], wanted: int = 1) -> dict[str, Verdict]:
    """Return the verdict on each image that somebody has answered, by its id.

    Each person's latest answer counts once. An image is open until `wanted` people have answered. A skip is no vote
    where others vote: the most frequent vote holds, and a tie of two is a conflict.
    """
    by_sample: dict[str, list[Answer]] = defaultdict(list)
    for answer in latest_of(answers).values():
        if answer.status != "open":
            by_sample[answer.sample].append(answer)
    return {sample: _verdict(given, wanted) for sample, given in by_sample.items()}


def _verdict(given: Sequence[Answer], wanted: int) -> Verdict:
    answers = tuple(sorted(given, key=lambda answer: answer.annotator))
    if len(answers) < wanted:
        return Verdict("open", None, answers)
    votes = Counter((answer.status, answer.label) for answer in answers if answer.status != "skipped")
    if not votes:
        return Verdict("skipped", None, answers)
    (first, most), *others = votes.most_common()
    if others and others[0][1] == most:
        return Verdict("conflict", None, answers)
    status, label = first
    return Verdict(status, label, answers)  # type: ignore[arg-type]  # `open` has been left out


def kappa(found: Mapping[str, Verdict]) -> float | None:
    """Return how far people agree about classes beyond chance; None where no image has two labels.

    Two people: Cohen's kappa (1960) over the images that both labelled. More: Fleiss' kappa (1971), which needs as many
    labels of each image: the first ones, as many as all images with several have. Later ones settle conflicts; without
    these images the others would agree by choice. It is 1 where all agree, and also where only one class was ever
    given, where chance explains all.
    """
    several = [[a for a in verdict.answers if a.status == "labelled"] for verdict in found.values()]
    several = [labels for labels in several if len(labels) > 1]
    if not several:
        return None
    people = sorted({answer.annotator for labels in several for answer in labels})
    classes = {name: place for place, name in enumerate(sorted({str(a.label) for labels in several for a in labels}))}
    if len(people) == 2:
        pairs = np.zeros((len(classes), len(classes)))
        for labels in several:
            first, second = sorted(labels, key=lambda answer: answer.annotator)
            pairs[classes[str(first.label)], classes[str(second.label)]] += 1
        agreed = float(np.trace(pairs) / pairs.sum())
        chance = float((pairs.sum(axis=1) @ pairs.sum(axis=0)) / pairs.sum() ** 2)
    else:
        raters = min(map(len, several))
        counts = np.array(
            [
                np.bincount(
                    [classes[str(a.label)] for a in sorted(labels, key=lambda answer: answer.time)[:raters]],
                    minlength=len(classes),
                )
                for labels in several
            ]
        )
        agreed = float(((counts**2).sum(axis=1) - raters).mean() / (raters * (raters - 1)))
        chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return 1.0 if chance == 1 else (agreed - chance) / (1 - chance)

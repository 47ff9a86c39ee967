"""Imports a file of answers into the store, and says what has changed by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kafal_pipeline.annotation.answers import Answer, AnswerStore, latest_of
from kafal_pipeline.annotation.exchange.entries import SHOWN
from kafal_pipeline.annotation.exchange.read import Answers, Source, answers_in
from kafal_pipeline.annotation.requests import Request
from kafal_pipeline.annotation.verdicts import Verdict, verdicts

NAMES: dict[Source, str] = {"csv": "a table", "label_studio": "Label Studio", "cvat": "CVAT"}


@dataclass(frozen=True)
class Imported:
    """What an import has changed.

    Attributes
    ----------
    added, replaced, unchanged, older
        Numbers of answers: new ones; of these, those in the place of an earlier one of the same person; those that were
        there already; those that the same person has changed since.
    read
        What the file said.
    verdicts
        What holds of each image now.
    retrained
        Images that a model was trained with under another label than holds now: the old and the new one.
    requests
        Those of the run.
    """

    added: int
    replaced: int
    unchanged: int
    older: int
    read: Answers
    verdicts: Mapping[str, Verdict]
    retrained: Mapping[str, tuple[str, str]]
    requests: Sequence[Request]

    @property
    def missing(self) -> int:
        """Number of images that the run asks for and that are still to be answered, conflicts included."""
        return len({asked.sample for request in self.requests for asked in request.missing(self.verdicts)})

    def lines(self) -> list[str]:
        """Return the summary."""
        total = self.added + self.unchanged + self.older
        lines = [f"{counted(total, 'answer')} from {NAMES[self.read.source]}: {', '.join(self._parts())}."]
        if not self.added:
            lines.append("Nothing has changed." if total else "It holds no answer yet: fill in labels, and save it.")
        if self.read.disputed:
            named = [f"{sample}: {said}" for sample, said in self.read.disputed.items()]
            lines += _section("Left out, since one person says two things of an image: keep one", named)
        if self.retrained:
            named = [f"{sample}: {old}, now {new}" for sample, (old, new) in self.retrained.items()]
            lines += _section("A model was trained with another label; what is trained next takes the new one", named)
        lines += conflict_lines(self.requests, self.verdicts)
        return lines

    def _parts(self) -> Iterator[str]:
        yield f"{self.added} new" + (f" ({self.replaced} replace earlier ones)" if self.replaced else "")
        yield f"{self.unchanged} there already"
        if self.older:
            yield f"{self.older} changed since by the same person, whose later answer holds"
        if self.read.empty:
            yield f"{counted(self.read.empty, 'image')} without an answer"


def import_file(
    path: Path,
    requests: Sequence[Request],
    store: AnswerStore,
    annotator: str,
    wanted: int = 1,
    elsewhere: Path | None = None,
    trained: Mapping[str, str] | None = None,
) -> Imported:
    """Add the answers of a file to a store, and return what has changed.

    If it ends half-way, however it ends, whole answers are in the store or none of a client's; the same call adds the
    rest.

    Parameters
    ----------
    requests
        All of the run, at least one.
    annotator
        Who answered where the file does not say.
    wanted
        How many people label each image.
    elsewhere
        The folder of all requests, so that a message can name another run.
    trained
        The labels that models were trained with so far, by the images' ids.

    Raises
    ------
    UserError
        With all that is wrong in the file; then nothing is imported.
    CannotWrite
        If the disk is full or must not be written.
    """
    read = answers_in(path, requests, annotator, elsewhere)
    added = replaced = unchanged = older = 0
    for client, given in sorted(read.by_client.items()):
        before = latest_of(store.read(client))
        # An answer that is taken back is news only where there is one.
        answers = [answer for answer in given if answer.status != "open" or _key(answer) in before]
        read.empty += len(given) - len(answers)
        new = store.add(client, answers)
        left = {_key(answer) for answer in answers} - {_key(answer) for answer in new}
        same = sum(_key(answer) in left and answer.says_the_same(before[_key(answer)]) for answer in answers)
        added, unchanged, older = added + len(new), unchanged + same, older + len(left) - same
        replaced += sum(_key(answer) in before for answer in new)
    found, asked = verdicts(store.read_all(), wanted), _samples(requests)
    retrained = {
        sample: (label, now)
        for sample, label in (trained or {}).items()
        if sample in asked and (now := _label(found.get(sample), label)) != label
    }
    return Imported(added, replaced, unchanged, older, read, found, retrained, requests)


def counted(number: int, name: str) -> str:
    """Return a number with what it counts.

    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def conflict_lines(requests: Iterable[Request], found: Mapping[str, Verdict]) -> list[str]:
    """Return the images of which people say different things, with who says what; nothing if there are none."""
    named = [
        f"{sample}: {', '.join(f'{a.annotator} says {a.label or a.status}' for a in found[sample].answers)}"
        for sample in _samples(requests)
        if sample in found and found[sample].outcome == "conflict"
    ]
    return _section("Conflicts, which wait for one more person or for one to change their mind", named) if named else []


def _section(title: str, named: Sequence[str]) -> list[str]:
    more = [f"  and {len(named) - SHOWN} more"] if len(named) > SHOWN else []
    return [f"{title} ({len(named)}):", *(f"  {line}" for line in named[:SHOWN]), *more]


def _key(answer: Answer) -> tuple[str, str]:
    return answer.sample, answer.annotator


def _samples(requests: Iterable[Request]) -> dict[str, None]:
    """Return the images that a run asks for, those in reserve included, each once and in order."""
    return {asked.sample: None for request in requests for asked in request.all}


def _label(verdict: Verdict | None, otherwise: str) -> str:
    """Return the label that holds; what nobody has answered in this store keeps the one it has."""
    if verdict is None:
        return otherwise
    return verdict.label or verdict.outcome

"""Follows the store of answers: what everybody says now, and the verdict on each image."""

from __future__ import annotations

from collections import defaultdict

from kafal_pipeline.annotation.answers import Answer, AnswerStore
from kafal_pipeline.annotation.verdicts import OPEN, Verdict, verdicts


class Ledger:
    """What people have answered, kept up to date with few steps: other commands may add answers at any time.

    `wanted`: how many people answer each image. `verdicts`: what holds of the images that somebody has answered.
    """

    def __init__(self, store: AnswerStore, wanted: int) -> None:
        self.wanted = wanted
        self._store = store
        self._changed: set[str] = set()
        self._forget()

    def refresh(self) -> set[str]:
        """Take in what has been added to the store since the last call; return the images that it is about."""
        found = {client: self._store.read(client) for client in self._store.clients()}
        if any(found.get(client, [])[count - 1 : count] != [last] for client, (count, last) in self._seen.items()):
            before = set(self.verdicts)  # somebody edited or removed a file
            self._forget()
            self._changed |= before
        for client, answers in found.items():
            for answer in answers[self._seen[client][0] if client in self._seen else 0 :]:
                self._take(answer)
            if answers:
                self._seen[client] = (len(answers), answers[-1])
        for sample in self._changed:
            self.verdicts[sample] = verdicts(self._latest[sample].values(), self.wanted).get(sample, OPEN)
        changed, self._changed = self._changed, set()
        return changed

    def verdict(self, sample: str) -> Verdict:
        """Return what holds of an image."""
        return self.verdicts.get(sample, OPEN)

    def latest(self, sample: str, annotator: str) -> Answer | None:
        """Return what a person said last of an image, a withdrawal included."""
        return self._latest.get(sample, {}).get(annotator)

    def of(self, annotator: str) -> list[Answer]:
        """Return what a person says now, the oldest answer first."""
        own = [found for of in self._latest.values() if (found := of.get(annotator)) and found.status != "open"]
        return sorted(own, key=lambda answer: answer.time)

    @property
    def annotators(self) -> list[str]:
        """Everybody who has answered, in order."""
        return sorted(self._annotators)

    def _take(self, answer: Answer) -> None:
        of = self._latest[answer.sample]
        before = of.get(answer.annotator)
        if before is None or before.time <= answer.time:
            of[answer.annotator] = answer
            self._changed.add(answer.sample)
            self._annotators.add(answer.annotator)

    def _forget(self) -> None:
        self._seen: dict[int, tuple[int, Answer]] = {}  # of each client: answers taken in, and the last of them
        self._latest: dict[str, dict[str, Answer]] = defaultdict(dict)
        self.verdicts: dict[str, Verdict] = {}
        self._annotators: set[str] = set()

"""Answers the page's requests, as JSON: images to show, answers to save, the last one withdrawn."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Any, get_args

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from kafal_pipeline.annotation.answers import Answer, Status
from kafal_pipeline.annotation.page.board import Item
from kafal_pipeline.annotation.page.queue import Person, Queue, Taken

EARLIER = 500
"""Answers that one can go back to."""

NAME, COMMENT = 100, 1000
"""Characters of a person's name, and of a comment."""


class Api:
    """The page's requests, all by POST; `fixed` is the person's name where the page need not ask for it.

    Each holds the name of the person (`annotator`), that of the tab (`page`) and, where images come back, those that
    the page has (`keep`).
    """

    def __init__(self, queue: Queue, resume: str) -> None:
        self.queue, self.resume, self.fixed = queue, resume, queue.desk.config.annotator
        self.blueprint = Blueprint("api", __name__)
        for view in (self.start, self.next, self.answer, self.undo, self.earlier, self.leave):
            self.blueprint.add_url_rule(f"/{view.__name__}", view_func=view, methods=["POST"])

    def start(self) -> Response:
        """Return what stays the same."""
        self.queue.refresh()
        return jsonify(
            run=self.queue.desk.run,
            annotator=self.fixed,
            suggested=_login(),
            annotators=self.queue.annotators(),
            wanted=self.queue.desk.config.annotators,
            resume=self.resume,
        )

    def next(self) -> Response:
        """Return the images to show."""
        return self._state(self._person())

    def answer(self) -> tuple[Response, int] | Response:
        """Save an answer, and only then return the images to show."""
        person, given = self._person(), _body()
        status: Any = given.get("status")
        label, seconds = given.get("label"), given.get("seconds")
        if status not in get_args(Status) or status == "open" or (label is None) == (status == "labelled"):
            raise BadRequest(f"status {status!r} with label {label!r} is no answer.")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float | None):
            raise BadRequest("seconds: allowed are a number and null.")
        comment = _text("comment", given.get("comment", ""), COMMENT)
        try:
            self.queue.answer(person, str(given.get("sample")), status, label, seconds=seconds, comment=comment)
        except Taken as taken:
            return self._state(person, message=str(taken)), 409
        return self._state(person)

    def undo(self) -> Response:
        """Withdraw the person's last answer; its image comes first."""
        person = self._person()
        last = self.queue.undo(person)
        return self._state(person) if last is None else self._state(person, [last.sample], undone=_said(last))

    def earlier(self) -> Response:
        """Return what the person has answered, the oldest first."""
        given = self.queue.earlier(self._person().name)[-EARLIER:]
        return jsonify(earlier=[{**self._shown(self.queue.board.known[a.sample]), "answer": _said(a)} for a in given])

    def leave(self) -> Response:
        """Let others have the images of a tab that is closed."""
        self.queue.leave(self._person().page)
        return jsonify({})

    def _person(self) -> Person:
        given = _body()
        name = self.fixed or _text("annotator", given.get("annotator"), NAME)
        if not name:
            raise BadRequest("annotator: a name is needed.")
        return Person(name, _text("page", given.get("page"), NAME))

    def _state(self, person: Person, first: list[str] | None = None, **more: Any) -> Response:
        """Return what a page is to show, and how far everything is."""
        keep = _body().get("keep")
        kept = [str(sample) for sample in keep[:10]] if isinstance(keep, list) else []
        items = self.queue.next(person, [*(first or ()), *kept])
        return jsonify(
            queue=[self._shown(item) for item in items],
            classes=self.queue.board.classes,
            progress=[asdict(of) for of in self.queue.progress()],
            left=self.queue.left_for(person.name),
            **more,
        )

    def _shown(self, item: Item) -> dict[str, Any]:
        """Return what a page learns of an image; of what others said, only that they disagree."""
        return {
            "sample": item.asked.sample,
            "who": item.request.who,
            "cycle": item.request.cycle,
            "part": item.asked.part,
            "conflict": self.queue.is_conflict(item.asked.sample),
        }


def _body() -> dict[str, Any]:
    body = request.get_json()
    if not isinstance(body, dict):
        raise BadRequest("A JSON object is needed.")
    return body


def _text(key: str, value: object, longest: int) -> str:
    """Return a text without spaces around it."""
    if not isinstance(value, str) or len(value) > longest or not value.replace("\n", " ").isprintable():
        raise BadRequest(f"{key}: a text of at most {longest} characters is needed.")
    return value.strip()


def _said(answer: Answer) -> dict[str, Any]:
    return {"status": answer.status, "label": answer.label, "comment": answer.comment}


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # there is none, as in some containers
        return ""

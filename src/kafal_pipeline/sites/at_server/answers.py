"""Checks what sites answer: what is not as it was asked for never reaches the global model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from kafal_pipeline.common.errors import NotAllowed, UserError
from kafal_pipeline.models.state import Arrays
from kafal_pipeline.sites.listed import check
from kafal_pipeline.sites.packets import Missing, Packet


def problem_with(kind: str, answer: Packet | Missing) -> str | None:
    """Return why an answer cannot be used, as a part of a sentence; None if it has exactly what is listed for it."""
    if isinstance(answer, Missing):
        return answer.why
    try:
        check(kind, "answer", answer)
    except NotAllowed as error:
        return str(error)
    return None


def problem_with_training(
    answer: Packet, cycle: int, round_: int, labels: int, model: Arrays, message: Mapping[str, tuple[int, ...]] | None
) -> str | None:
    """Return why a site's training cannot be used; None if it can.

    `labels` is the number that the server knows, `model` the broadcast. `message` has the shapes that other sites'
    messages of the round had, None for the first.
    """
    return next(_problems(answer, cycle, round_, labels, model, message), None)


def _problems(
    answer: Packet, cycle: int, round_: int, labels: int, model: Arrays, message: Mapping[str, tuple[int, ...]] | None
) -> Iterator[str]:
    values = answer.values
    if (values["cycle"], values["round"]) != (cycle, round_):
        yield f"the answer is of cycle {values['cycle']}, round {values['round']}"
    if values["labels"] != labels:
        yield f"it trained on {values['labels']} labels, and had said that it has {labels}"
    if values["problem"]:
        yield str(values["problem"])[:300]
    expected = {name: (array.shape, array.dtype) for name, array in model.items()}
    found = {name: (array.shape, array.dtype) for name, array in answer.arrays.get("model", {}).items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            yield f"its model has {_told(found.get(name))} as {name}, and the server's {_told(expected.get(name))}"
    for name in cast(list[str], values["parameters"]):
        if name not in expected:
            yield f"it names {name!r} as a parameter, which the model has not"
    shapes = {name: array.shape for name, array in answer.arrays.get("message", {}).items()}
    if message is not None and shapes != dict(message):
        yield "its message has other arrays than those of other sites"
    for group in ("model", "message"):
        for name, array in answer.arrays.get(group, {}).items():
            if array.dtype.kind == "f" and not np.isfinite(cast(Any, array)).all():
                yield f"the {group} is not finite ({name})"


def count_of(site: str, size: int, found: object) -> int:
    """Return a number of a site's images; raises UserError if the site has not so many."""
    if not isinstance(found, int) or not 0 <= found <= size:
        raise UserError(f"site {site}: speaks of {found} images; it has {size}.")
    return found


def array_of(site: str, answer: Packet, group: str, name: str, shape: tuple[int, ...]) -> Any:
    """Return an array that a site has sent; raises UserError if it is not there, or not of that shape and finite."""
    found: Any = answer.arrays.get(group, {}).get(name)
    if found is None or found.shape != shape or not np.isfinite(found).all():
        raise UserError(f"site {site}: its {group} is not an array of {shape} finite numbers.")
    return found


def _told(found: tuple[tuple[int, ...], Any] | None) -> str:
    return "nothing" if found is None else f"{found[1]} of shape {found[0]}"

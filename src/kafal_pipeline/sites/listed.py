"""The list of messages: every field that passes between the server and a site. What is not listed is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kafal_pipeline.common.errors import NotAllowed, did_you_mean
from kafal_pipeline.sites.packets import Packet

PROTOCOL = 2
"""Of the messages; a server and its sites must have the same."""

Direction = Literal["request", "answer"]

KINDS: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "whole": int,
    "number": (int, float),
    "texts": str,
    "numbers": (int, float),
}


@dataclass(frozen=True)
class Field:
    """A field: its type (a key of `KINDS`, or ``arrays``), its size, and why it is sent."""

    type: str
    size: str
    why: str


@dataclass(frozen=True)
class Listed:
    """The fields of a message: of what the server asks, and of what the site answers."""

    what: str
    request: Mapping[str, Field] = field(default_factory=dict)
    answer: Mapping[str, Field] = field(default_factory=dict)


RUN = {"run": Field("text", "one name", "which trial it is about; a site keeps each apart")}
CYCLE = {**RUN, "cycle": Field("whole", "1", "which cycle")}
MODEL = {"model": Field("arrays", "a model", "the global model")}
MODELS_ASKED = Field("texts", "a few names", "kinds of models that the query asked for: they count as traffic")

MESSAGES: dict[str, Listed] = {
    "join": Listed(
        "The server asks who is there.",
        {
            "protocol": Field("whole", "1", "that both sides speak the same version of this list"),
            "version": Field("text", "one version", "that both sides run the same version of the package"),
            "dataset": Field("text", "JSON", "how images are to be sized, and the classes if the server names them"),
            "annotation": Field("text", "one word", "that both sides have the labels by an oracle, or both by people"),
        },
        {
            "name": Field("text", "one name", "sites are known by name, and numbered by it"),
            "classes": Field("texts", "C names", "that all sites have the same classes, in the same order"),
            "height": Field("whole", "1", "the images' height"),
            "width": Field("whole", "1", "the images' width"),
            "channels": Field("whole", "1", "1 for grey images, 3 for colour"),
            "train": Field("whole", "1", "number of images to train on"),
            "test": Field("whole", "1", "number of test images"),
            "levels": Field(
                "arrays",
                "256 counts a channel",
                "how often each level of grey or colour occurs in all training images together: mean and standard "
                "deviation of the federation are made of the sums; not sent where dataset.mean and dataset.std are set",
            ),
        },
    ),
    "start": Listed(
        "The server begins a trial, or resumes it.",
        {
            **RUN,
            "config": Field("text", "JSON", "the trial's parameters: query, update, model, training, budget"),
            "client": Field("whole", "1", "the site's number: its place among the sorted names"),
            "classes": Field("texts", "C names", "the classes in their order"),
            "mean": Field("numbers", "1 a channel", "of all sites' training images, to normalise by"),
            "std": Field("numbers", "1 a channel", "the same"),
        },
        {"samples": Field("whole", "1", "number of images to train on")},
    ),
    "annotate": Listed(
        "The site has labelled what was chosen for a cycle; of cycle 0, its first labels.",
        CYCLE,
        {
            "missing": Field("whole", "1", "how many images still wait for people; then there are no counts below"),
            "labelled": Field("whole", "1", "number of labels so far: the site's weight in the average"),
            "asked": Field("arrays", "C counts", "classes of the cycle's labels; counts below min_count are 0"),
        },
    ),
    "train": Listed(
        "The site trains for a round.",
        {
            **CYCLE,
            "round": Field("whole", "1", "which round"),
            **MODEL,
            "server": Field("arrays", "as the update says", "what the update keeps at the server and sends along"),
        },
        {
            "cycle": Field("whole", "1", "which cycle, so that no stale answer is taken for a new one"),
            "round": Field("whole", "1", "which round"),
            "labels": Field("whole", "1", "number of labels that it trained on"),
            "loss": Field("number", "1", "mean loss of the round's steps"),
            "epochs": Field("whole", "1", "local epochs in this cycle so far"),
            "steps": Field("whole", "1", "steps of the round"),
            "seconds": Field("number", "1", "how long it took"),
            "travel": Field("number", "1", "sum of learning rates, which some updates divide by"),
            "own": Field("whole", "1", "bytes of the global model that the site replaces by its own batch norms"),
            "problem": Field("text", "a sentence", "what is not finite; then nothing below is sent"),
            "parameters": Field("texts", "names in the model", "which entries of the model are everybody's parameters"),
            "model": Field("arrays", "a model", "the model after local training"),
            "message": Field(
                "arrays", "as the update says", "what the update sends with it, such as scaffold's change"
            ),
        },
    ),
    "summary": Listed(
        "The site sums up what it has, for a query that needs all sites' sums before it chooses.",
        {**CYCLE, **MODEL},
        {
            "models": MODELS_ASKED,
            "summary": Field(
                "arrays", "as the query says", "counts and sums by class; classes below min_count are 0 throughout"
            ),
        },
    ),
    "select": Listed(
        "The site chooses the images that it wants labelled; which these are stays there.",
        {
            **CYCLE,
            **MODEL,
            "summary_*": Field("arrays", "as the query says", "the summary of each site, by number"),
        },
        {
            "models": MODELS_ASKED,
            "queried": Field("whole", "1", "how many images were chosen"),
        },
    ),
    "evaluate": Listed(
        "The site measures a model on its test images.",
        {**RUN, **MODEL},
        {
            "auroc": Field("number", "1", "mean area under its ROC curves; NaN where not defined"),
            "confusion": Field("arrays", "C x C counts", "classes by predicted classes; rows below min_count are 0"),
            "gaps": Field("arrays", "15 numbers", "confidence less accuracy, summed in each bin of confidence"),
        },
    ),
}


def check(kind: str, direction: Direction, packet: Packet) -> None:
    """Raise NotAllowed unless a packet has exactly the fields that are listed for it, of their types."""
    if kind not in MESSAGES:
        raise NotAllowed(f"the message {kind!r} is not listed. {did_you_mean(kind, MESSAGES)}")
    listed = getattr(MESSAGES[kind], direction)
    where = f"the {direction} {kind!r}"
    for name in (*packet.values, *packet.arrays):
        found = listed.get(f"{name.rpartition('_')[0]}_*" if name.startswith("summary_") else name)
        if found is None or (found.type == "arrays") != (name in packet.arrays):
            raise NotAllowed(f"{where} has the field {name!r}, which is not listed for it.")
        if found.type != "arrays" and not _is(packet.values[name], found.type):
            raise NotAllowed(f"{where} has {packet.values[name]!r} as {name!r}; allowed: {found.type}.")
    wanted = {name for name, found in listed.items() if not name.endswith("*") and found.type != "arrays"}
    if missing := sorted(wanted - packet.values.keys()):
        raise NotAllowed(f"{where} lacks the field {missing[0]!r}.")


def _is(value: object, kind: str) -> bool:
    if kind in ("texts", "numbers"):
        return isinstance(value, list) and all(_is(item, kind[:-1]) for item in value)
    return isinstance(value, KINDS[kind]) and not isinstance(value, bool)

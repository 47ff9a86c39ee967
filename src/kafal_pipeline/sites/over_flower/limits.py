"""Stops pulling a message that is larger than this side takes: Flower hands arrays over in pieces of 5 MB."""

from __future__ import annotations

import threading
from typing import Any

from flwr.common.serde import context_from_proto, message_from_proto
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError

from kafal_pipeline.sites.packets import Packet

MB = 1_000_000

FACTOR, EXTRA = 8, 64 * MB
"""An answer may be so many times as large as the arrays of its request, and these bytes more."""


def limit_of_answer(request: Packet) -> int:
    """Return how many bytes a site's answer to a request may have.

    >>> limit_of_answer(Packet())
    64000000
    """
    arrays = (array for group in request.arrays.values() for array in group.values())
    return FACTOR * sum(array.nbytes for array in arrays) + EXTRA


class Limited:
    """Flower's client of a SuperLink or SuperNode, which pulls no more of a message than `limit` bytes.

    What is too large fails as an object does that is not there: Flower then takes the message for unavailable.

    Attributes
    ----------
    limit
        In bytes, of each message.
    refused
        Whether a message was larger.
    """

    def __init__(self, client: Any, limit: int) -> None:
        self._client, self.limit, self.refused = client, limit, False
        self._lock = threading.Lock()
        self._messages: dict[str, str] = {}  # the message that each object is a part of
        self._pulled: dict[str, int] = {}  # bytes, by message
        self._protos: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def PullTaskInput(self, request: Any) -> Any:  # noqa: N802 - Flower's name
        """Pull what a task begins with, and remember it for `question`."""
        self._protos["task"] = self._client.PullTaskInput(request)
        return self._protos["task"]

    def PullMessages(self, request: Any) -> Any:  # noqa: N802
        """Pull messages without their objects, and begin to count these."""
        found = self._client.PullMessages(request)
        with self._lock:
            for proto, tree in zip(found.messages_list, found.message_object_trees, strict=True):
                self._pulled[tree.object_id] = 0
                self._messages |= {part.object_id: tree.object_id for part in iterate_object_tree(tree)}
                self._protos["message"] = proto
        return found

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        """Pull a piece; raises ObjectPullError if its message has become too large."""
        message = self._messages.get(request.object_id, "")
        if self._pulled.get(message, 0) > self.limit:
            raise self._too_large(request.object_id)
        found = self._client.PullObject(request)
        with self._lock:
            self._pulled[message] = self._pulled.get(message, 0) + len(found.object_content)
            if self._pulled[message] > self.limit:
                raise self._too_large(request.object_id)
        return found

    def _too_large(self, part: str) -> ObjectPullError:
        self.refused = True
        return ObjectPullError(part, f"the message is larger than {self.limit:,} bytes")

    def question(self) -> tuple[Any, Any]:
        """Return the message that was pulled last, without its content, and its context, to reply to it."""
        return message_from_proto(self._protos["message"]), context_from_proto(self._protos["task"].context)

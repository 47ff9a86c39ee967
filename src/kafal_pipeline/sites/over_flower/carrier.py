"""Carries packets over Flower's Grid. Sites are known by the names under which their keys are registered."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from kafal_pipeline.common.errors import NotAllowed, UserError
from kafal_pipeline.sites.over_flower.limits import EXTRA, Limited, limit_of_answer
from kafal_pipeline.sites.over_flower.wire import to_packet, to_records, type_of
from kafal_pipeline.sites.packets import Missing, Packet

logger = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks for answers."""


class OverFlower:
    """Carries packets to the SuperNodes of a federation.

    Parameters
    ----------
    grid
        Flower's, of the ServerApp.
    timeout
        Seconds after which a site that has not answered is missing.
    """

    def __init__(self, grid: Grid, timeout: float) -> None:
        self._grid, self._timeout = grid, timeout
        self._client: Limited | None = None
        if (client := getattr(grid, "_runtime_client", None)) is not None:
            self._client = grid._client = Limited(client, EXTRA)  # type: ignore[attr-defined]

    def _nodes(self) -> dict[str, int]:
        """Return the SuperNodes that are online, by name."""
        nodes: dict[str, int] = {}
        for node in self._grid.get_nodes():
            if not node.name or node.name in nodes:
                problem = f"is a second one named {node.name}" if node.name else "has no name"
                raise UserError(
                    f"SuperNode {node.node_id}: {problem}. Register each site's key under the site's own name: "
                    "flwr supernode register --name (docs/federation.md)."
                )
            nodes[node.name] = node.node_id
        return nodes

    def sites(self) -> list[str]:
        """Return the names of the sites that are online, sorted."""
        return sorted(self._nodes())

    def wait_for(self, count: int, patience: float) -> None:
        """Wait until so many sites are online, at most `patience` seconds."""
        end = time.monotonic() + patience
        while len(self.sites()) < count and time.monotonic() < end:
            time.sleep(1)

    def ask(self, kind: str, requests: Mapping[str, Packet], place: str) -> Iterator[tuple[str, Packet | Missing]]:
        """Send each site its request, and yield the answers as they come; who is silent for too long is missing."""
        nodes = self._nodes()
        waiting: dict[str, str] = {}
        limit = max(map(limit_of_answer, requests.values()), default=EXTRA)
        if self._client is not None:
            self._client.limit = limit
        for name, packet in requests.items():
            # One by one: pushed together, the messages would all be in memory, and have to fit into one request.
            pushed: str | None = None
            if name in nodes:
                message = Message(
                    to_records(packet), nodes[name], type_of(kind), ttl=self._timeout + 60, group_id=place
                )
                pushed = next(iter(self._grid.push_messages([message])), None)
            if pushed is None:
                yield name, Missing("it is not connected")
            else:
                waiting[pushed] = name
        end = time.monotonic() + self._timeout
        while waiting:
            replies = list(self._grid.pull_messages(list(waiting)))
            for reply in replies:
                if reply.metadata.reply_to_message_id in waiting:
                    yield waiting.pop(reply.metadata.reply_to_message_id), _answer(reply, limit)
            if waiting and time.monotonic() > end:
                for name in waiting.values():
                    yield name, Missing(f"it did not answer within {self._timeout:g} s")
                return
            if not replies:
                time.sleep(POLL)


def _answer(reply: Message, limit: int) -> Packet | Missing:
    if reply.has_error():
        return Missing(f"it failed ({reply.error.reason})")
    try:
        packet = to_packet(reply.content, limit)
    except NotAllowed as error:
        return Missing(str(error))
    refused = packet.values.get("refused")
    return Missing(str(refused)[:1000]) if isinstance(refused, str) else packet

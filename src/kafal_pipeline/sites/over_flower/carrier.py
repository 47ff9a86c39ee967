"""Carries packets over Flower's Grid. Sites are known by the names under which their keys are registered."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from kafal_pipeline.common.errors import NotAllowed, UserError
from kafal_pipeline.sites.over_flower.limits import EXTRA, Limited, limit_of_answer
from kafal_pipeline.sites.over_flower.wire import to_packet, to_records, type_of
from kafal_pipeline.sites.packets import Missing, Packet

logger = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks for answers."""

COMES_BACK = 60.0
"""Seconds in which a site whose connection has gone may come back; it is asked again then, and answers the same."""


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
        lost: dict[str, float] = {}  # sites whose connection has gone, and until when each may come back
        for name, packet in requests.items():
            # One by one: pushed together, the messages would all be in memory, and have to fit into one request.
            if (pushed := self._push(kind, packet, nodes.get(name), place)) is None:
                yield name, Missing("it is not connected")
            else:
                waiting[pushed] = name
        end = time.monotonic() + self._timeout
        while waiting or lost:
            replies = list(self._grid.pull_messages(list(waiting))) if waiting else []
            for reply in replies:
                if (name := waiting.pop(reply.metadata.reply_to_message_id, "")) == "":
                    continue
                if reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE:
                    lost[name] = time.monotonic() + COMES_BACK
                else:
                    yield name, _answer(reply, limit)
            yield from self._ask_again(kind, requests, place, waiting, lost)
            if time.monotonic() > end:
                for name in [*waiting.values(), *lost]:
                    yield name, Missing(f"it did not answer within {self._timeout:g} s")
                return
            if not replies:
                time.sleep(1 if lost else POLL)

    def _ask_again(
        self,
        kind: str,
        requests: Mapping[str, Packet],
        place: str,
        waiting: dict[str, str],
        lost: dict[str, float],
    ) -> Iterator[tuple[str, Missing]]:
        """Ask those of the lost sites again that have come back; yield those that have not in time."""
        nodes = self._nodes() if lost else {}
        for name, until in list(lost.items()):
            if (pushed := self._push(kind, requests[name], nodes.get(name), place)) is not None:
                waiting[pushed] = name
            elif time.monotonic() > until:
                yield name, Missing("its connection has gone")
            else:
                continue
            del lost[name]

    def _push(self, kind: str, packet: Packet, node: int | None, place: str) -> str | None:
        """Send a message, and return its number; None if the site is not connected."""
        if node is None:
            return None
        message = Message(to_records(packet), node, type_of(kind), ttl=self._timeout + 60, group_id=place)
        return next(iter(self._grid.push_messages([message])), None)


def _answer(reply: Message, limit: int) -> Packet | Missing:
    if reply.has_error():
        return Missing(f"it failed ({reply.error.reason})")
    try:
        packet = to_packet(reply.content, limit)
    except NotAllowed as error:
        return Missing(str(error))
    refused = packet.values.get("refused")
    return Missing(str(refused)[:1000]) if isinstance(refused, str) else packet

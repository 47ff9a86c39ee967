"""What the participants of a round send, read from where it lies one participant at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from torch import Tensor

from kafal_pipeline.models.state import State
from kafal_pipeline.update.base import ClientUpdate


class Deferred(Mapping[str, Tensor]):
    """A client's state that is read when it is first looked into, and kept from then on."""

    def __init__(self, states: Mapping[int, State], client: int) -> None:
        self._states, self._client = states, client

    @cached_property
    def _state(self) -> State:
        return self._states[self._client]

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor."""
        return self._state[name]

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter(self._state)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._state)


class RoundUpdates(Sequence[ClientUpdate]):
    """What the participants of a round send, in their order.

    Every look at a participant makes a new `ClientUpdate`, whose tensors are read when they are first looked into:
    whoever goes through the participants one by one has one model in memory at a time.

    Parameters
    ----------
    sent
        By participant, what it sends without its tensors.
    states, messages
        The tensors, by client; a client without a message sends none.
    """

    def __init__(
        self, sent: Mapping[int, ClientUpdate], states: Mapping[int, State], messages: Mapping[int, State]
    ) -> None:
        self._clients, self._sent, self._states, self._messages = list(sent), sent, states, messages

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one participant's update, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        client = self._clients[index]
        message = Deferred(self._messages, client) if client in self._messages else {}
        return replace(self._sent[client], state=Deferred(self._states, client), message=message)

    def __len__(self) -> int:
        """Return the number of participants."""
        return len(self._sent)

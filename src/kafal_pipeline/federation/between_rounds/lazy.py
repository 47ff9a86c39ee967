"""Mappings that make each value when it is read, so that a thousand models need not be in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Generic, TypeVar

from torch import Tensor

from kafal_pipeline.models.state import State
from kafal_pipeline.update.base import ClientUpdate

K = TypeVar("K")
V = TypeVar("V")


class Lazy(Mapping[K, V], Generic[K, V]):
    """A mapping that makes a value each time it is asked for, and keeps none.

    Parameters
    ----------
    makers
        By key, what makes its value.

    Examples
    --------
    >>> dict(Lazy({"two": lambda: 1 + 1}))
    {'two': 2}
    """

    def __init__(self, makers: Mapping[K, Callable[[], V]]) -> None:
        self._makers = makers

    def __getitem__(self, key: K) -> V:
        """Make a value."""
        return self._makers[key]()

    def __iter__(self) -> Iterator[K]:
        """Return the keys."""
        return iter(self._makers)

    def __len__(self) -> int:
        """Return their number."""
        return len(self._makers)


class Deferred(Mapping[str, Tensor]):
    """A state that is read when it is first looked into, and kept from then on.

    Parameters
    ----------
    read
        Returns it.
    """

    def __init__(self, read: Callable[[], State]) -> None:
        self._read = read

    @cached_property
    def _state(self) -> State:
        return self._read()

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor."""
        return self._state[name]

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter(self._state)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._state)


@dataclass(frozen=True)
class Sent:
    """What a participant sends, without its tensors; see `kafal_pipeline.update.base.ClientUpdate`."""

    client: int
    labels: float
    travel: float
    parameters: frozenset[str]


class RoundUpdates(Sequence[ClientUpdate]):
    """What the participants of a round send, in their order.

    Every look at a participant makes a new `ClientUpdate`, whose tensors are read when they are first looked into:
    whoever goes through the participants one by one has one model in memory at a time.

    Parameters
    ----------
    sent
        The participants'.
    states, messages
        Their tensors, by client; a client without a message sends none.
    """

    def __init__(self, sent: Sequence[Sent], states: Mapping[int, State], messages: Mapping[int, State]) -> None:
        self._sent, self._states, self._messages = sent, states, messages

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one participant's update, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        sent = self._sent[index]
        message: Mapping[str, Tensor] = {}
        if sent.client in self._messages:
            message = Deferred(partial(self._messages.__getitem__, sent.client))
        state = Deferred(partial(self._states.__getitem__, sent.client))
        return ClientUpdate(state, sent.labels, sent.travel, sent.parameters, message)

    def __len__(self) -> int:
        """Return the number of participants."""
        return len(self._sent)

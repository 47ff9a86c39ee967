"""Updates that the participants of a round send, read from their store one participant at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

from torch import Tensor

from kafal_pipeline.models.state import State
from kafal_pipeline.update.base import ClientUpdate


class Deferred(Mapping[str, Tensor]):
    """A state that is read when it is first looked into, and kept from then on."""

    def __init__(self, read: Callable[[], State]) -> None:
        self._read = read

    @cached_property
    def _state(self) -> State:
        return self._read()

    def __getitem__(self, name: str) -> Tensor:
        return self._state[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


class RoundUpdates(Sequence[ClientUpdate]):
    """What the participants of a round send, in their order, made again at every look at a participant.

    Whoever goes through the participants one by one has one model in memory at a time.
    """

    def __init__(self, make: Sequence[Callable[[], ClientUpdate]]) -> None:
        self._make = make

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return [make() for make in self._make[index]] if isinstance(index, slice) else self._make[index]()

    def __len__(self) -> int:
        return len(self._make)

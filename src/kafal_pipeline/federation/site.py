"""A client's site: what belongs to the client, and leaves it in no federation."""

from collections.abc import MutableMapping
from dataclasses import dataclass, field, replace

from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.federation.between_rounds.client_states import ClientState
from kafal_pipeline.models.state import Arrays, State, to_arrays, to_state


@dataclass(frozen=True)
class Site:
    """What belongs to one client; its images are indices into the training set.

    - `model`, `downloaded`: its own model after its last training in the cycle, and the global model that it last
      downloaded; None where it has not trained, or where nobody asks for them.
    - `watched`: what its query has watched while it trained (`kafal_pipeline.federation.workers.watching`).
    - `memory`: what its query kept from the cycle before.
    """

    client: int
    pool: ClientPool
    state: ClientState = field(default_factory=ClientState)
    model: Arrays | None = None
    downloaded: Arrays | None = None
    watched: Arrays | None = None
    memory: Arrays = field(default_factory=dict)


@dataclass
class Sites:
    """The sites of a simulation, by client, without their pools.

    What grows with the number of clients times the size of a model may lie on disk: a value is read when it is asked
    for, and changed by setting it again. `downloaded` is the round whose broadcast each client last downloaded;
    `broadcasts` are these, by round.
    """

    states: MutableMapping[int, ClientState] = field(default_factory=dict)
    local_states: MutableMapping[int, State] = field(default_factory=dict)
    downloaded: dict[int, int] = field(default_factory=dict)
    broadcasts: MutableMapping[int, State] = field(default_factory=dict)
    watched: MutableMapping[int, Arrays] = field(default_factory=dict)
    memory: dict[int, Arrays] = field(default_factory=dict)

    def for_training(self, client: int, pool: ClientPool, *, with_model: bool) -> Site:
        """Return a client's site as it trains."""
        model = to_arrays(self.local_states[client]) if with_model and client in self.local_states else None
        return Site(client, pool, self.states[client], model, watched=self.watched.get(client))

    def for_query(self, client: int, pool: ClientPool) -> Site:
        """Return a client's site as it chooses; its models are read now."""
        site = Site(client, pool, watched=self.watched.get(client), memory=self.memory.get(client, {}))
        if client not in self.local_states:
            return site
        models = self.local_states[client], self.broadcasts[self.downloaded[client]]
        return replace(site, model=to_arrays(models[0]), downloaded=to_arrays(models[1]))

    def keep(self, site: Site, round_: int, *, momentum: bool) -> None:
        """Take over a site that has trained in a round, with its momentum or without."""
        client, state = site.client, site.state
        self.local_states[client] = to_state(site.model or {})
        self.downloaded[client] = round_
        self.states[client] = state if momentum else replace(state, momentum=None, steps=0)
        if site.watched is not None:
            self.watched[client] = site.watched

    def forget_broadcasts(self) -> None:
        """Forget the broadcasts that no client has downloaded last."""
        for round_ in set(self.broadcasts) - set(self.downloaded.values()):
            del self.broadcasts[round_]

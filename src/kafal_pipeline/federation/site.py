"""One client's site: what belongs to the client, and leaves it in no federation."""

from __future__ import annotations

from dataclasses import dataclass, field

from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.federation.between_rounds.client_states import ClientState
from kafal_pipeline.models.state import Arrays


@dataclass(frozen=True)
class Site:
    """What belongs to one client; its images are indices into the training set.

    Attributes
    ----------
    client
        Its number.
    pool
        Its labelled and unlabelled samples.
    state
        Momentum and what else it keeps between the rounds of a cycle.
    model, downloaded
        Its own model after its last training in the cycle, and the global model that it last downloaded; None where it
        has not trained, or where nobody asks for them.
    watched
        What its query has watched while it trained (`kafal_pipeline.federation.workers.watching`).
    memory
        What its query kept from the cycle before.
    """

    client: int
    pool: ClientPool
    state: ClientState = field(default_factory=ClientState)
    model: Arrays | None = None
    downloaded: Arrays | None = None
    watched: Arrays | None = None
    memory: Arrays = field(default_factory=dict)

"""Cycles and queries of a simulated federation in one call each."""

from __future__ import annotations

from types import SimpleNamespace

from kafal_pipeline.federation import cycle as server
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.site import Sites
from kafal_pipeline.federation.trial import Trial


def joined(state, sites):
    """Return what the server and the sites have, in one."""
    return SimpleNamespace(**vars(state), **vars(sites))


def train_cycle(config, pools, model, cycle, workers, on_round=None, store=None):
    """Train a cycle; return what the server and the sites have then."""
    options = {} if store is None else {"store": lambda _: store}
    clients = Simulation(config, workers, pools, **options)

    def after(state):
        if on_round is not None:
            on_round(joined(state, clients.sites))

    return joined(server.train_cycle(config, clients, model, cycle, after), clients.sites)


def query_cycle(config, pools, trained, cycle, workers, memory=None, on_wait=None):
    """Let all clients choose; return what they chose and what that took. `trained` is what `train_cycle` returned."""
    sites = Sites(trained.states, trained.local_states, trained.downloaded, trained.broadcasts, trained.watched)
    sites.memory = dict(memory or {})
    clients = Simulation(config, workers, pools, sites=sites, on_wait=on_wait)
    found = Trial(config, None, clients).query(cycle, trained.global_state)
    return SimpleNamespace(selections=clients.selections, bytes_down=found.bytes_down, bytes_up=found.bytes_up)

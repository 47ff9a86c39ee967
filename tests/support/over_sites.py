"""A trial over sites and the same one simulated, and what of them must be the same bits."""

from __future__ import annotations

from kafal_pipeline.annotation.pools import order_of_first
from kafal_pipeline.data import initial_pool, make_partition, open_store
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.sites.at_server.clients import SitesAsClients
from kafal_pipeline.sites.at_server.members import gather

SECONDS = ("train_seconds", "query_seconds", "evaluate_seconds")
ROUNDED = ("calibration_error", "auroc_macro", "per_class_auroc")


def simulated(config, folder):
    """Return the steps of the same trial with all images in one place."""
    images = open_store(config.dataset, folder, folder / "store", folder)
    split = make_partition(images.train_labels, config.partition, config.seed, images.train_clients)
    pool = initial_pool(
        split, images.train_labels, config.budget, config.cycles, config.seed, order_of_first(images, config)
    )
    with Workers(images, config) as workers:
        return list(Trial(config, images, Simulation(config, workers, pool)).run())


def over_sites(config, carrier, run="trial", **options):
    """Return the steps of a trial over sites."""
    members = gather(carrier, config)
    clients = SitesAsClients(config, carrier, members, run, **options)
    return list(Trial(config, members.images(), clients).run())


def comparable(step):
    """Return what of a step's result must be the same bits."""
    if step.name == "train":
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in step.result.rows]
        states = {**step.result.global_state, **{f"server {k}": v for k, v in step.result.server.items()}}
        return rows, {name: tensor.numpy().tobytes() for name, tensor in states.items()}
    if step.name == "evaluate":
        found = {key: value for key, value in step.result.items() if key not in (*SECONDS, *ROUNDED)}
        found["per_client"] = [
            {key: value for key, value in row.items() if key not in ROUNDED} for row in found["per_client"]
        ]
        return found
    if step.name == "query":
        return step.result.bytes_down, step.result.bytes_up
    return None


def assert_same(found, expected):
    assert [(step.name, step.cycle) for step in found] == [(step.name, step.cycle) for step in expected]
    for one, other in zip(found, expected, strict=True):
        assert comparable(one) == comparable(other), (one.name, one.cycle)

"""Tries a user's own query, update and model on a few images, before a run begins that may take days."""

import logging
from typing import Any

import numpy as np
import torch

from kafal_pipeline.common.errors import NotAllowed, UserError
from kafal_pipeline.common.threads import single_thread
from kafal_pipeline.common.users_code import blamed
from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData
from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.federation.cycle import train_cycle
from kafal_pipeline.federation.prediction import predict_test
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.federation.workers.pool import Late, Workers, own_classes_in
from kafal_pipeline.models.check import check_network
from kafal_pipeline.models.factory import build, network_class
from kafal_pipeline.models.state import State, to_arrays, to_state
from kafal_pipeline.query.factory import make_query
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.update.factory import make_update

logger = logging.getLogger(__name__)

SAME = "Take randomness from what is passed in alone, and keep nothing from call to call."

CLIENTS, LABELLED, BUDGET = 2, 4, 2
PIXELS, MOST, LEAST = 2**15, 32, 6  # of a client's unlabelled images together, and their number: fewer of larger ones
PATIENCE = 20.0  # seconds after which the run begins without an answer: a first call may fetch or compile something


def dry_run(config: Config, images: ImageData) -> None:
    """Train two clients for a step, aggregate, predict and query, twice, if the query, update or model is a user's own.

    In a process of its own, where there is a store of the images to read: what ends or spoils that process does
    nothing to this one. Raises `UserError` with the class, and what is wrong with it.
    """
    own = own_classes_in(config)
    if not own:
        return
    try:
        with single_thread():
            _try_out(_small(config), images)
    except Late:
        logger.warning("%s: a dry run did not end in %g s; the run begins without it.", ", ".join(own), PATIENCE)
    except UserError as error:
        whose = "" if any(name in str(error) for name in own) else f" of {', '.join(own)}"
        raise UserError(f"dry run{whose}: {error}") from error


def _try_out(config: Config, images: ImageData) -> None:
    pools = _pools(images)
    start = _start(config, images)
    with Workers(images, config, apart=True, patience=PATIENCE) as workers:
        models, chosen = [], []
        for _ in range(2):
            clients = Simulation(config, workers, pools)
            trial = Trial(config, images, clients)
            models.append(train_cycle(config, clients, start, 0).global_state)
            trial.query(1, models[-1])
            chosen.append(clients.selections)
        predict_test(models[0], min(2, len(images.test_labels)), workers)
        if workers.device.type != "cpu":  # a GPU may round differently the second time
            return
        query, update, model = make_query(config.query), make_update(config.update), network_class(config.model)
        with blamed("all clients", update=update, model=model, query=query):  # a query may change how others compute
            if any(not torch.equal(tensor, models[1][name]) for name, tensor in models[0].items()):
                raise NotAllowed("the same training gave another model the second time. " + SAME)
        with blamed("all clients", query=query, update=update, model=model):
            if any(not np.array_equal(first.samples, chosen[1][client].samples) for client, first in chosen[0].items()):
                raise NotAllowed("the same pool and the same `rng` gave another choice the second time. " + SAME)


def _start(config: Config, images: ImageData) -> State:
    """Return the weights to begin with, of a network that has been checked."""
    mean, std = images.mean.tolist(), images.std.tolist()
    few = Pixels(images.train_images[:LABELLED], mean, std, torch.device("cpu")).batch(torch.arange(LABELLED))

    def make(generator: torch.Generator) -> torch.nn.Module:
        shape: dict[str, Any] = {"in_channels": images.channels, "num_classes": images.num_classes}
        return build(config.model, **shape, image_size=images.train_images.shape[1:3], generator=generator)

    with blamed("one forward", model=network_class(config.model)):
        return to_state(to_arrays(check_network(make, few, images.num_classes).state_dict()))


def _pools(images: ImageData) -> dict[int, ClientPool]:
    """Return a few images from all over the training set, as two clients' pools."""
    height, width = images.train_images.shape[1:3]
    unlabelled = int(np.clip(PIXELS // (height * width), LEAST, MOST))
    spread = np.linspace(0, len(images.train_labels) - 1, CLIENTS * (LABELLED + unlabelled)).astype(np.int64)
    pools = {}
    for client in range(CLIENTS):
        mine = np.unique(spread[client::CLIENTS])
        labelled = mine[:: max(1, len(mine) // LABELLED)][:LABELLED]
        others = np.setdiff1d(mine, labelled)
        labels = images.train_labels[labelled]
        in_turn = np.arange(len(labels)) % images.num_classes  # nobody has said yet what they show
        pools[client] = ClientPool(labelled, np.where(labels < 0, in_turn, labels), others, others)
    return pools


def _small(config: Config) -> Config:
    """Return the configuration of the smallest trial: all else is as it will be."""
    changes = {
        "budget": {"per_cycle": BUDGET},
        "federation": {"rounds": 1, "participation": 1.0},
        "training": {"local_epochs": 1, "batch_size": LABELLED, "processes": 1, "cuda_graphs": False},
        "query_training": {"epochs": 1},
    }
    sections = {name: getattr(config, name).model_copy(update=change) for name, change in changes.items()}
    # What an update keeps back of clients with few images, it would keep back of all here.
    if hasattr(make_update(config.update), "min_count"):
        options = {**config.update.options, "min_count": 1}
        sections["update"] = config.update.model_copy(update={"options": options})
    return config.model_copy(update=sections)

"""The engine as a benchmark drives it: its own worker processes, which stay, as they do in a run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from kafal_pipeline.config import Config, resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.data.store.read import read_store
from kafal_pipeline.federation.site import Site
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.query_worker import QueryTask
from kafal_pipeline.federation.workers.tasks import Broadcast, TrainTask
from kafal_pipeline.models.state import initial_state, to_arrays
from published import Client, Setting


def configuration(precision: str, setting: Setting) -> Config:
    return resolve(
        {
            "query": "ksas",
            "partition": {"clients": 1000},
            "training": {
                "local_epochs": 1,
                "batch_size": setting.batch,
                "batches": "published",
                "lr": 0.1,
                "augmentation": {"flip": setting.flip, "crop_padding": setting.padding},
                "precision": precision,
                "device": setting.device,
            },
        }
    )


def site(client: int, labelled: np.ndarray, unlabelled: np.ndarray, labels: np.ndarray) -> Site:
    return Site(client, ClientPool(labelled, labels[labelled], unlabelled, unlabelled))


class Engine:
    """Worker processes that train clients and score samples."""

    def __init__(self, data: ImageData, precision: str, setting: Setting) -> None:
        self.data, self.setting = data, setting
        self.workers = Workers(data, configuration(precision, setting))
        shape = {"in_channels": data.channels, "num_classes": data.num_classes}
        self.state, self.other = (to_arrays(initial_state("resnet8", **shape, seed=s, cycle=0)) for s in range(2))

    def train(self, clients: list[Client]) -> int:
        """Train each client for one round; return the samples it took, labelled and unlabelled."""
        labels = self.data.train_labels
        order = sorted(range(len(clients)), key=lambda index: -len(clients[index].labelled))
        tasks = [
            TrainTask(
                site(index, clients[index].labelled, clients[index].unlabelled, labels), Broadcast(0, 1, self.state)
            )
            for index in order
        ]
        steps = sum(result.steps for result in self.workers.map("train", tasks))
        return sum(len(client.labelled) for client in clients) + steps * self.setting.batch

    def scores(self, size: int) -> np.ndarray:
        """Return the KSAS scores of the first `size` samples, four clients' as in the published protocol if 18,000."""
        labels = self.data.train_labels
        parts = np.array_split(np.arange(size), 4)
        known = np.arange(size, size + 500)
        tasks = [
            QueryTask(replace(site(c, known, part, labels), model=self.state), 1, len(part), self.other)
            for c, part in enumerate(parts)
        ]
        scores = np.empty(size)
        for selection in (answer.selection for answer in self.workers.map("select", tasks)):
            scores[selection.samples] = selection.scores
        return scores

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.close()


def main() -> None:
    """Train and score for the memory they take: `python contestants.py STORE`."""
    data = read_store(Path(sys.argv[1]))
    samples = np.arange(len(data.train_labels))
    with Engine(data, "fp32", Setting(batch=128, flip=True, padding=4)) as engine:
        engine.train([Client(part[:1000], part[1000:]) for part in np.array_split(samples, 10)[:4]])
        engine.scores(10_000)


if __name__ == "__main__":
    main()

"""Ten clients against a thousand: time of a client step, and memory of all processes.

    python benchmarks/many_clients.py [--turns 9]

Every client has 50 noise images of CIFAR-10's size, 32 of them labelled, and 10 clients take part in a round, whether
there are 10 or 1,000. Time: rounds with 4 steps a client, turn by turn; ratios are taken within a turn, whose order
changes from one to the next, and the standard error of their mean says how well it is known. Memory: a cycle of 3
rounds, in whose last all clients train, and the query after it, so that every client has a model and a momentum.
Prints a table and writes benchmarks/results/many_clients.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import measure
from kafal_pipeline.common.machine import cores
from kafal_pipeline.config import Config, resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.data.store.read import read_store
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.federation.cycle import train_cycle
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.state import initial_state

IMAGES, LABELLED, ACTIVE, ROUNDS = 50, 32, 10, 20
FEW, MANY = 10, 1000
RESULTS = Path(__file__).parent / "results" / "many_clients.json"


def configuration(clients: int, rounds: int, *, all_at_last: bool) -> Config:
    return resolve(
        {
            "query": "ksas",
            "update": "kcfu",
            "partition": {"clients": clients},
            "federation": {
                "rounds": rounds,
                "participation": ACTIVE / clients,
                "all_clients_last_round": all_at_last,
            },
            "training": {"local_epochs": 1 if all_at_last else 2, "batch_size": LABELLED if all_at_last else 16},
            "budget": {"per_cycle": 1},
        }
    )


def pools_of(data: ImageData, clients: int) -> dict[int, ClientPool]:
    pools = {}
    for client in range(clients):
        own = np.arange(client * IMAGES, (client + 1) * IMAGES)
        known, other = own[:LABELLED], own[LABELLED:]
        pools[client] = ClientPool(known, data.train_labels[known], other, other)
    return pools


def start_of(data: ImageData) -> dict[str, torch.Tensor]:
    return initial_state("resnet8", in_channels=data.channels, num_classes=data.num_classes, seed=0, cycle=0)


def simulation(config: Config, data: ImageData, workers: Workers, pools: dict[int, ClientPool]) -> Simulation:
    return Simulation(config, workers, pools, store=lambda _: Store(data.folder))


class Federation:
    """Clients whose processes stay, and rounds that are timed."""

    def __init__(self, data: ImageData, clients: int) -> None:
        self.data, self.config = data, configuration(clients, ROUNDS, all_at_last=False)
        self.pools, self.workers = pools_of(data, clients), Workers(data, self.config)

    def seconds_a_step(self) -> float:
        """Train a cycle; return the time of all its rounds but the first, divided by their steps."""
        ends = []
        clients = simulation(self.config, self.data, self.workers, self.pools)
        state = train_cycle(self.config, clients, start_of(self.data), 0, lambda _: ends.append(time.perf_counter()))
        steps = sum(row["steps"] for row in state.rows if row["round"])
        return (ends[-1] - ends[0]) / steps


def turns(data: ImageData, number: int) -> list[dict[str, float]]:
    few, many = Federation(data, FEW), Federation(data, MANY)
    with few.workers, many.workers:
        measured = []
        for turn in range(number + 1):
            first, second = (few, many) if turn % 2 else (many, few)
            times = {federation: federation.seconds_a_step() for federation in (first, second)}
            measured.append(
                {
                    f"milliseconds_a_step_{FEW}": 1e3 * times[few],
                    f"milliseconds_a_step_{MANY}": 1e3 * times[many],
                    "ratio_step_time": times[many] / times[few],
                }
            )
        return measured[1:]  # in the first, processes start


def remember(store: Path, clients: int) -> None:
    """Train and query for the memory they take."""
    data, config = read_store(store), configuration(clients, 3, all_at_last=True)
    pools = pools_of(data, clients)
    with Workers(data, config) as workers:
        simulated = simulation(config, data, workers, pools)
        state = train_cycle(config, simulated, start_of(data), 0)
        assert len(simulated.sites.local_states) == clients
        Trial(config, data, simulated).query(1, state.global_state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--remember", nargs=2, metavar=("STORE", "CLIENTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.remember:
        remember(Path(options.remember[0]), int(options.remember[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        data = measure.noise(Path(name))
        memory = {
            f"peak_memory_mb_{clients}": measure.peak_memory(
                [sys.argv[0], "--remember", str(data.folder), str(clients)],
            )
            for clients in (FEW, 100, MANY)
        }
        rows = turns(data, options.turns)
    results = measure.spreads(rows)
    ratios = [row["ratio_step_time"] for row in rows]
    results["ratio_step_time_mean"] = statistics.mean(ratios)
    if len(ratios) > 1:
        results["ratio_step_time_standard_error"] = statistics.stdev(ratios) / len(ratios) ** 0.5
    model = sum(tensor.nbytes for tensor in start_of(data).values()) / 1e6
    results |= memory | {
        "model_mb": model,
        "active": ACTIVE,
        "images_a_client": IMAGES,
        "processes": cores(),
        "torch": torch.__version__,
        "turns": options.turns,
    }
    measure.write(RESULTS, results)


if __name__ == "__main__":
    main()

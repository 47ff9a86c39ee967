"""What checkpoints cost: rounds of one cycle with and without them, in turns.

    python benchmarks/checkpoints.py [--data data/01_raw/cifar10.npz] [--turns 30]

Prints a table and writes benchmarks/results/checkpoints.json. The default run's first cycle on the embedded digits,
whose rounds take a sixth of a second, in turns of twenty rounds; with --data also the preset cifar10_small, in turns
of one round, a third as many. All clients train in every round, so that rounds are alike.

The share is the time that a turn's training waited for checkpoints, and the processor time of the thread that wrote
them, by the time the turn took: what they would cost at most. The ratio is that of two turns that follow each other, in
an order that changes: what they were seen to cost, on a machine whose speed varies by more than that.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
from kafal_pipeline.config import resolve
from kafal_pipeline.data import client_pools, initial_pool, make_partition, open_store
from kafal_pipeline.federation.between_rounds import cycle_state
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.federation.cycle import train_cycle
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.site import Sites
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.state import initial_state
from protocol import parameters

RESULTS = Path(__file__).parent / "results" / "checkpoints.json"


class InTurns(Store):
    """A store that saves some rounds: of the first turn none, of the next two all, then of two none, and so on."""

    def __init__(self, folder: Path, every: float, rounds: int) -> None:
        super().__init__(folder, "benchmark", every)
        self.rounds, self.round, self.seconds = rounds, 0, 0.0

    def on(self, round_: int) -> bool:
        return (round_ // self.rounds + 1) // 2 % 2 == 1

    @property
    def due(self) -> bool:
        return self.on(self.round - 1) and super().due

    def _commit(self, *arguments: Any) -> Any:
        begin = time.thread_time()
        try:
            return super()._commit(*arguments)
        finally:
            self.seconds += time.thread_time() - begin


def save(state: CycleState, sites: Sites, store: InTurns) -> None:
    """Save a round in the place of `cycle_state.save`, and measure what that takes."""
    begin = time.perf_counter()
    store.round = state.round
    original_save(state, sites, store)
    if state.round % store.rounds == 0:
        store.wait()  # what a turn writes is that turn's cost
    store.seconds += time.perf_counter() - begin


original_save = cycle_state.save


def figures(values: dict[str, Any], folder: Path, rounds: int, turns: int) -> dict[str, list[float]]:
    """Return the share of checkpoints, the ratio with by without, seconds of a round, and megabytes of all files."""
    federation = {**values["federation"], "rounds": 2 * turns * rounds, "participation": 1.0}
    values = {**values, "tracking": False, "federation": federation}
    config = resolve(values)
    data = open_store(config.dataset, folder, folder / f"images_{config.dataset.folder}")
    split = make_partition(data.train_labels, config.partition, config.seed)
    pools = client_pools(initial_pool(split, data.train_labels, config.budget, config.cycles, config.seed))
    start = initial_state(config.model, in_channels=data.channels, num_classes=data.num_classes, seed=0, cycle=0)
    kept = InTurns(folder / config.dataset.folder, config.training.checkpoint_every, rounds)
    ends, costs = [], [0.0]
    with Workers(data, config) as workers:
        once = resolve({**values, "federation": {**values["federation"], "rounds": 1}})
        train_cycle(once, Simulation(once, workers, pools), start, 0)
        ends.append(time.perf_counter())
        cycle_state.save = save

        def on_round(state: CycleState) -> None:
            if state.round % rounds == 0:
                ends.append(time.perf_counter())
                costs.append(kept.seconds)

        train_cycle(config, Simulation(config, workers, pools, store=lambda _: kept), start, 0, on_round)
        cycle_state.save = original_save
    seconds = [end - begin for begin, end in zip(ends, ends[1:], strict=False)]
    found: dict[str, list[float]] = {"share": [], "ratio": [], "seconds_a_round": []}
    for first in range(0, len(seconds), 2):
        with_, without = (first, first + 1) if kept.on(first * rounds) else (first + 1, first)
        found["share"].append((costs[with_ + 1] - costs[with_]) / seconds[with_])
        found["ratio"].append(seconds[with_] / seconds[without])
        found["seconds_a_round"].append(seconds[without] / rounds)
    found["megabytes"] = [sum(path.stat().st_size for path in kept.folder.iterdir()) / 1e6]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="CIFAR-10 as an .npz with MedMNIST's keys")
    parser.add_argument("--turns", type=int, default=30)
    options = parser.parse_args()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        cases = {"digits": (parameters("base"), 20, options.turns)}
        if options.data:
            values = parameters("cifar10_small")
            values["dataset"] = {"name": "cifar10_npz", "path": str(Path(options.data).resolve())}
            values["partition"] = {"method": "dirichlet_balanced", "clients": 10, "alpha": 0.1}
            cases["cifar10_small"] = (values, 1, max(3, options.turns // 3))
        for case, (values, rounds, turns) in cases.items():
            results[f"{case}_turns"] = turns
            for key, found in figures(values, Path(name), rounds, turns).items():
                results[f"{case}_{key}"] = measure.spread(found)
                if key == "ratio":
                    error = statistics.stdev(found) / len(found) ** 0.5
                    results[f"{case}_ratio_mean"] = statistics.mean(found)
                    results[f"{case}_ratio_standard_error"] = error
    measure.write(RESULTS, results)


if __name__ == "__main__":
    main()

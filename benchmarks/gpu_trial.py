"""A full trial of the published protocol on a GPU, and the engine against the published code's way of working there.

    python benchmarks/gpu_trial.py --data cifar10.npz --split kafal_cifar10_alpha0.1_10clients.json --out results

Needs torch, numpy, pandas, scikit-learn, scipy, safetensors, Pillow, pydantic and PyYAML, not Kedro, MLflow or DVC.
Writes `trial.json` (measures, seconds, samples a second and memory of every cycle), of which `gpu_report.py` makes a
report, and, after every round, `state.npz` and `rounds`: the same command resumes from there after a kill or the end
of `--budget-seconds`.

`--pack` writes the images of --data in two parts small enough to carry, and ends: `--data part_1 part_2` reads them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np
import torch

import cifar_parts
import measure
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import write_json
from kafal_pipeline.common.registry import create
from kafal_pipeline.config import Config, Strategy, resolve
from kafal_pipeline.data import ImageData, client_pools, initial_pool, make_partition, split_table
from kafal_pipeline.federation.site import Site
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.tasks import Broadcast, TrainTask
from kafal_pipeline.models.state import initial_state, to_arrays
from kafal_pipeline.query import QUERIES
from kafal_pipeline.training.devices import choose_device
from kafal_pipeline.update import UPDATES
from protocol import parameters, plain
from trial import SavedTrial, samples_of

PRESET, LABEL = "cifar10", "cifar10_gpu_trial"
"""The folder of conf/ that has the published protocol, and what a report calls the data set, as no run does."""


def window(
    config: Config, data: ImageData, split: list[np.ndarray], *, cudnn_benchmark: bool = True, turns: int = 3
) -> dict[str, Any]:
    """Samples a second of the engine and of the published way of working, on clients of the first cycle, in turns.

    The order changes from turn to turn, and ratios are taken within one. Both have done all their work once before, so
    that neither makes its first calls in the time that is taken. The published code leaves cuDNN's search for the
    fastest algorithm off, as PyTorch does, and so it is off in its turns, whatever the engine's workers have set for
    the process; the precision is the engine's.
    """
    import published

    config = config.model_copy(update={"update": Strategy.model_validate("kcfu")})
    pools = client_pools(initial_pool(split, data.train_labels, config.budget, config.cycles, config.seed))
    shape = {"in_channels": data.channels, "num_classes": data.num_classes}
    state = to_arrays(initial_state(config.model, **shape, seed=config.seed, cycle=0))
    tasks = [TrainTask(Site(client, pool), Broadcast(0, 1, state)) for client, pool in pools.items()]
    training = config.training
    device = choose_device(training.device)
    augmentation = training.augmentation
    setting = published.Setting(training.batch_size, augmentation.flip, augmentation.crop_padding, str(device))
    clients = [published.Client(pool.labelled, pool.initial_unlabelled) for pool in list(pools.values())[:2]]

    with workers_for(data, config, cudnn_benchmark) as workers:

        def engine() -> int:
            results = workers.map("train", tasks)
            return sum(samples_of(result.steps, len(result.site.pool.labelled), config) for result in results)

        def as_published() -> int:
            torch.backends.cudnn.benchmark = False
            try:
                done = published.as_written(data.train_images, data.train_labels, clients, setting)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                return done
            finally:
                torch.backends.cudnn.benchmark = cudnn_benchmark

        work = {"engine": engine, "published": as_published}
        for warm in work.values():
            warm()
        rates = [measure.in_turn(work, turn) for turn in range(turns)]
    rows = [
        {
            **{f"{name}_samples_per_second": found[name] for name in work},
            "ratio": found["engine"] / found["published"],
        }
        for found in rates
    ]
    return {**measure.spreads(rows), "turns": turns}


def forget(device: torch.device) -> None:
    """Give back what the window has left in memory, and begin anew with the GPU's peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def machine(device: torch.device) -> dict[str, Any]:
    """What computes, and how much memory that has taken so far."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "torch": torch.__version__,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "peak_gpu_memory_mb": torch.cuda.max_memory_reserved(device) / 1e6 if cuda else None,
    }


def configuration(options: argparse.Namespace) -> Config:
    """Return the published protocol's configuration with what the command line changes."""
    values = parameters(PRESET) | {
        "seed": options.seed,
        "cycles": options.cycles,
        "query": options.query,
        "update": options.update,
        "dataset": {"name": options.label},
    }
    values["federation"]["rounds"] = options.rounds
    values["training"] |= {
        "precision": options.precision,
        "device": options.device,
        "local_epochs": options.epochs,
        "processes": options.lanes or "auto",
        "cuda_graphs": options.cuda_graphs,
    }
    if options.split:
        values["partition"]["path"] = str(options.split.absolute())
    config = resolve(values)
    create("query", config.query.name, config.query.options, QUERIES)  # wrong names are errors before hours of training
    create("update", config.update.name, config.update.options, UPDATES)
    return config


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; its defaults are the published protocol."""
    preset = resolve(parameters(PRESET))
    training = preset.training
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="one .npz with MedMNIST's keys, or its parts"
    )
    parser.add_argument("--split", type=Path, help="JSON with each client's training indices; without: one is drawn")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--label", default=LABEL, help="what the report calls the data set")
    parser.add_argument("--pack", action="store_true", help="write --data in parts into --out, and end")
    parser.add_argument("--query", default=preset.query.name)
    parser.add_argument("--update", default=preset.update.name)
    parser.add_argument("--seed", type=int, default=preset.seed)
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default=training.precision)
    parser.add_argument("--device", default=training.device)
    parser.add_argument("--lanes", type=int, help="clients side by side on a GPU; default: ten")
    parser.add_argument("--cycles", type=int, default=preset.cycles)
    parser.add_argument("--rounds", type=int, default=preset.federation.rounds)
    parser.add_argument("--epochs", type=int, default=training.local_epochs)
    parser.add_argument("--cuda-graphs", action=argparse.BooleanOptionalAction, default=training.cuda_graphs)
    parser.add_argument(
        "--cudnn-benchmark",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let cuDNN try its algorithms for every new batch size",
    )
    parser.add_argument("--window", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--trial", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--budget-seconds", type=float, default=float("inf"))
    return parser.parse_args(arguments)


@contextlib.contextmanager
def workers_for(data: ImageData, config: Config, cudnn_benchmark: bool) -> Iterator[Workers]:
    """Make the engine's workers, and set whether cuDNN searches for the fastest algorithms, which they turn on."""
    with Workers(data, config) as workers:
        torch.backends.cudnn.benchmark = cudnn_benchmark
        yield workers


def main(arguments: list[str] | None = None) -> int:
    options, start = parse(arguments), time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.pack:
        for path in cifar_parts.pack(options.data[0], options.out):
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
        return 0
    results_path = options.out / "trial.json"
    results: dict[str, Any] = json.loads(results_path.read_text()) if results_path.is_file() else {}
    try:
        config, data = configuration(options), cifar_parts.load(options.data)
        split = make_partition(data.train_labels, config.partition, config.seed)
        table = split_table(split, data.train_labels, data.num_classes).to_dict("records")
        results |= {"dataset": options.label, "values": plain(config), "split_table": table, "finished": False}
        if options.window and "window" not in results:
            results["window"] = window(config, data, split, cudnn_benchmark=options.cudnn_benchmark)
            print(results["window"], flush=True)
            write_json(results_path, results, indent=2)
        if options.trial:
            forget(choose_device(options.device))
            trial = SavedTrial(config, data, split, options.out, start + options.budget_seconds)
            with workers_for(data, config, options.cudnn_benchmark) as workers:
                results["finished"] = trial.run(workers)
            results["cycles"] = trial.state.curve
            results["train_seconds"] = sum(row["train_seconds"] for row in trial.state.curve)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    write_json(results_path, {**results, **machine(choose_device(options.device))}, indent=2)
    print(f"Written to {results_path}; finished: {results['finished']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

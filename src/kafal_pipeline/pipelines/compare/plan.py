"""Plans a comparison: the runs that are finished, that resume and that begin."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kafal_pipeline.config import Config
from kafal_pipeline.config.compare import CompareConfig
from kafal_pipeline.data import ImageData, format_split, make_partition, split_origin
from kafal_pipeline.runs import provenance
from kafal_pipeline.runs.layout import Layout


@dataclass(frozen=True)
class Planned:
    """One run of a comparison, and whether its results are there, and as they were saved."""

    layout: Layout
    state: provenance.State

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.layout.config


@dataclass(frozen=True)
class Plan:
    """What a comparison is made of.

    `splits` has a run for each seed whose split is not on disk, or is not what the parameters ask for. `runs` are all
    runs, in the order in which they begin: seed by seed, so that an interrupted comparison has whole seeds.
    """

    compare: CompareConfig
    splits: tuple[Layout, ...]
    runs: tuple[Planned, ...]

    @property
    def missing(self) -> tuple[Planned, ...]:
        """The runs that have no finished results."""
        return tuple(run for run in self.runs if run.state != "finished")


def make_plan(root: Path, compare: CompareConfig, configs: Iterable[Config], images: ImageData) -> Plan:
    """Look at what is on disk, and change nothing."""
    runs = [Layout(root, config) for config in configs]
    seeds = {run.config.seed: run for run in runs}
    stale = {seed: run for seed, run in seeds.items() if not _has_split(run, images)}
    planned = [Planned(run, "absent" if run.config.seed in stale else provenance.state(run)) for run in runs]
    return Plan(compare, tuple(stale.values()), tuple(planned))


def _has_split(run: Layout, images: ImageData) -> bool:
    """Tell whether the split on disk is the one that the parameters and the code make, which takes no time."""
    config = run.config
    try:
        origin = json.loads(run.split_origin.read_text(encoding="utf-8"))
        found = run.splits.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    if origin != split_origin(config, images) or not run.split_table.is_file():
        return False
    split = make_partition(images.train_labels, config.partition, config.seed, images.train_clients, run.root)
    return found == format_split([items.tolist() for items in split]) + "\n"

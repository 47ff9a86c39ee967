"""Plans a comparison: the runs that are finished, that resume and that begin."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kafal_pipeline.config import Config
from kafal_pipeline.config.compare import CompareConfig
from kafal_pipeline.data import ImageData, format_split, make_partition, split_origin
from kafal_pipeline.runs import provenance

SPLITS = Path("data/03_primary")


@dataclass(frozen=True)
class Planned:
    """One run of a comparison, and whether its results are there, and as they were saved."""

    config: Config
    state: provenance.State

    def folder(self, root: Path) -> Path:
        """Return the folder of the run's outputs."""
        return root / provenance.OUTPUTS / self.config.run_path


@dataclass(frozen=True)
class Plan:
    """What a comparison is made of.

    `splits`: for each seed whose split is not on disk, or is not what the parameters ask for, the configuration of a
    run. `runs`: all runs, in the order in which they begin: seed by seed, so that an interrupted comparison has whole
    seeds.
    """

    compare: CompareConfig
    splits: tuple[Config, ...]
    runs: tuple[Planned, ...]

    @property
    def missing(self) -> tuple[Planned, ...]:
        """The runs that have no finished results."""
        return tuple(run for run in self.runs if run.state != "finished")


def make_plan(root: Path, compare: CompareConfig, configs: Iterable[Config], images: ImageData) -> Plan:
    """Look at what is on disk, and change nothing."""
    configs = list(configs)
    seeds = {config.seed: config for config in configs}
    stale = {seed: config for seed, config in seeds.items() if not _has_split(root, config, images)}
    runs = [Planned(config, "absent" if config.seed in stale else provenance.state(root, config)) for config in configs]
    return Plan(compare, tuple(stale.values()), tuple(runs))


def _has_split(root: Path, config: Config, images: ImageData) -> bool:
    """Tell whether the split on disk is the one that the parameters and the code make, which takes no time."""
    folder = root / SPLITS / config.split_path
    try:
        origin = json.loads((folder / "split_origin.json").read_text(encoding="utf-8"))
        found = (folder / "splits.json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    if origin != split_origin(config, images) or not (folder / "split_table.csv").is_file():
        return False
    split = make_partition(images.train_labels, config.partition, config.seed, images.train_clients, root)
    return found == format_split([items.tolist() for items in split]) + "\n"

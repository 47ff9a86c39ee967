"""Names of a run's folders, files, cycles and nodes: the one place that knows them, next to ``catalog.yml``."""

from __future__ import annotations

from pathlib import Path

from kafal_pipeline.config import Config, DatasetConfig

RAW = Path("data/01_raw")
OUTPUTS = Path("data/07_model_output")
ANNOTATION = Path("data/annotation")
JOURNALS = Path("data/09_tracking")
"""Folders in the project's folder: downloaded files, what runs have put out, asked people, and recorded."""

FIRST_NODE = "cycle_00.initial_pool"
"""The node that a run of its own begins with; those before it prepare data that runs share."""


def cycle_name(cycle: int) -> str:
    """Return the name of a cycle.

    Examples
    --------
    >>> cycle_name(3)
    'cycle_03'
    """
    return f"cycle_{cycle:02d}"


def parsed(name: str) -> tuple[int | None, str]:
    """Return the cycle that a node or data set belongs to, and its name in that cycle.

    Examples
    --------
    >>> parsed("cycle_03.train"), parsed("report.draw")
    ((3, 'train'), (None, 'report.draw'))
    """
    place, _, inner = name.partition(".")
    number = place.removeprefix("cycle_")
    return (int(number), inner) if inner and number != place and number.isdigit() else (None, name)


def image_store(root: Path, dataset: DatasetConfig) -> Path:
    """Return the folder of a data set's images, which runs share, in the project folder `root`."""
    return root / "data/02_intermediate" / dataset.folder / "images"


class Layout:
    """Folders and files of the run with a configuration, in the project folder `root`.

    Attributes
    ----------
    name
        ``<data set>/<query>-<update>/seed_<n>``.
    images, features, split
        Folders that runs share.
    data
        The one of images and features that clients train on.
    pools, models, outputs
        Folders with one for each cycle: pools; models and checkpoints; tables, measures, and what made them.
    requests, answers
        The folder of what this run asks people to label, and that of their answers, which runs of a data set share.
    report
        The folder of the summary, tables and figures.
    journals
        The folder of what the tracker gets, of the log and of the lock; `data_set_journals`, that of all runs.
    lock, holder
        The file that the process holds which works on the run, and the one that says which that is.
    waiting
        The file that says that the run waits for labels.
    log, split_log
        What the run, and the making of its split, say in a process of a comparison.
    """

    def __init__(self, root: Path, config: Config) -> None:
        self.root, self.config, self.name = root, config, config.run_path
        data, tracking = root / "data", root / JOURNALS
        self.images = image_store(root, config.dataset)
        self.features = self.images.with_name("features")
        self.data = self.images if config.features.network is None else self.features
        self.split = data / "03_primary" / config.split_path
        self.splits, self.split_table = self.split / "splits.json", self.split / "split_table.csv"
        self.split_origin = self.split / "split_origin.json"
        self.pools = data / "05_model_input" / self.name
        self.models = data / "06_models" / self.name
        self.outputs = root / OUTPUTS / self.name
        self.provenance, self.configuration = self.outputs / "provenance.json", self.outputs / "configuration.json"
        self.requests = root / ANNOTATION / self.name
        self.answers = root / ANNOTATION / config.dataset.folder / "labels"
        self.report = data / "08_reporting" / self.name
        self.data_set_journals, self.journals = tracking / config.dataset.folder, tracking / self.name
        self.lock, self.holder = self.journals / "run.lock", self.journals / "run.json"
        self.waiting = self.journals / "waiting.json"
        self.log, self.split_log = self.journals / "run.log", tracking / config.split_path / "run.log"

    @property
    def from_root(self) -> Layout:
        """The same run, with paths that start from the project's folder, as messages show them."""
        return Layout(Path(), self.config)

    @property
    def of_cycles(self) -> tuple[Path, ...]:
        """The folders that have one for each cycle."""
        return self.pools, self.models, self.outputs

    @property
    def written(self) -> tuple[Path, ...]:
        """All folders that a run writes; the images may be shared, and read alone."""
        return self.split, *self.of_cycles, self.report, self.journals

    def metrics(self, cycle: int) -> Path:
        """Return the file of a cycle's measures."""
        return self.outputs / cycle_name(cycle) / "metrics.json"

    def global_model(self, cycle: int) -> Path:
        """Return the file of the global model after a cycle."""
        return self.models / cycle_name(cycle) / "global_model.safetensors"

    def checkpoint(self, cycle: int) -> Path:
        """Return the folder of a cycle's finished rounds, which is there until the cycle is trained."""
        return self.models / cycle_name(cycle) / "checkpoint"

    def comparison_journals(self, name: str) -> Path:
        """Return the folder of the journals of a comparison that this run belongs to."""
        return self.data_set_journals / "comparison" / name

    def comparison_report(self, name: str) -> Path:
        """Return the folder of the report of a comparison that this run belongs to."""
        return self.report.parents[1] / "comparison" / name

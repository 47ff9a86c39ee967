"""One model for each section of the parameters, in the order of `conf/base/parameters.yml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, model_serializer, model_validator

from kafal_pipeline.config.base import (
    FOLDER_NAME,
    SMALLEST_RATE,
    AnyNumber,
    AnyWhole,
    ClassName,
    Fraction,
    Number,
    Repetitions,
    Section,
    Whole,
)


class DatasetConfig(Section):
    """Where the images come from.

    `name` is `digits`, one of torchvision's data sets, or any name of one's own; a file `data/01_raw/<name>.npz` goes
    before those. `path`, which goes before everything else, names an `.npz` file with MedMNIST's keys or a folder of
    images. `resize` says how images come to `image_size`: `squash` changes their proportions, `crop` cuts off what is
    too much, `pad` puts black around. `mean` and `std` are of pixels scaled to [0, 1]. `label` is the folder name of
    this data set's results (default: `name`). `classes` names the classes in their order, also those that no image has
    been labelled with yet. `test_share` sets that share of every client's images aside as the test set, where the data
    bring none.
    """

    name: str = Field(default="digits", pattern=FOLDER_NAME)
    label: str | None = Field(default=None, pattern=FOLDER_NAME)
    path: str | None = None
    download: bool = False
    emnist_split: Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"] = "balanced"
    image_size: Whole | None = Field(default=None, ge=5, le=1024)
    resize: Literal["squash", "crop", "pad"] = "squash"
    mean: list[Annotated[AnyNumber, Field(ge=-1000, le=1000)]] | None = None
    std: list[Annotated[AnyNumber, Field(ge=1e-4, le=1000)]] | None = None
    classes: list[ClassName] | None = Field(default=None, min_length=2, max_length=10_000)
    test_share: Number | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _checked(self) -> DatasetConfig:
        if self.path is not None and self.folder == "digits":
            raise ValueError(
                "`path` is set, so set `name` too: it names the folder of the results, and digits is taken"
            )
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError("`classes` names one twice")
        if self.resize != "squash" and self.image_size is None:
            raise ValueError("`resize` says how images come to `image_size`, so set that too")
        return self

    @model_serializer(mode="wrap")
    def _without_newer_defaults(self, handler: Any) -> dict[str, Any]:
        """Leave out what is the default and was added later, so that stores and runs of older versions stay valid."""
        values: dict[str, Any] = handler(self)
        newer = {"resize": "squash", "classes": None, "test_share": None}
        return {key: value for key, value in values.items() if key not in newer or value != newer[key]}

    @property
    def folder(self) -> str:
        """Name of the folder of this data set's results."""
        return self.label or self.name


class LongTailConfig(Section):
    """Subsampling of the training set to a long tail: the largest class has `imbalance_ratio` times the smallest's."""

    imbalance_ratio: Number = Field(ge=1, le=1e9)
    profile: Literal["exponential", "step"] = "exponential"


class PartitionConfig(Section):
    """How the training set is divided among the clients.

    `clients` is always the number of clients: with the methods `file` and `natural`, which bring their own, it must
    agree with theirs.
    """

    method: Literal["iid", "dirichlet", "dirichlet_balanced", "shards", "quantity_skew", "file", "natural"] = (
        "dirichlet"
    )
    clients: Whole = Field(default=5, ge=1, le=100_000)
    alpha: Number = Field(default=0.2, gt=0, le=1e9)
    min_size: Whole = Field(default=1, ge=1)
    classes_per_client: Whole = Field(default=2, ge=1)
    path: str | None = None
    when_absent: Literal["iid", "dirichlet", "dirichlet_balanced", "shards", "quantity_skew"] | None = None
    samples_per_client: Whole | None = Field(default=None, ge=1)
    long_tail: LongTailConfig | None = None

    @model_validator(mode="after")
    def _file_needs_a_path(self) -> PartitionConfig:
        if self.method == "file" and self.path is None:
            raise ValueError("method 'file' needs `path`, a JSON file with one list of training indices per client")
        return self


class ModelConfig(Section):
    """The network that every client trains.

    Written `model: cnn4`, or `model: {name: cnn4, width: 32}` with the network's own options next to the name.
    `normalisation: group` puts group norm in the place of every batch norm; `pretrained` is a safetensors file with the
    weights that the first cycle begins with, and every one if they begin fresh; the query models `local_only` and
    `distilled` begin with them too.

    >>> ModelConfig.model_validate({"name": "cnn4", "width": 32}).options
    {'width': 32}
    """

    name: str = "resnet8"
    normalisation: Literal["batch", "group"] = "batch"
    pretrained: str | None = None
    options: dict[str, JsonValue] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_name_or_mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("options", {}), dict):
            return value
        own = {key: item for key, item in value.items() if key in cls.model_fields and key != "options"}
        others = {key: item for key, item in value.items() if key not in cls.model_fields}
        return {**own, "options": {**value.get("options", {}), **others}}


class FederationConfig(Section):
    """Rounds of one cycle. A null takes the preset's value.

    `client_momentum` says whether a client's momentum survives from one round to its next within a cycle; `batch_norm:
    local` lets every client keep its own batch norms, parameters and statistics, as in FedBN (Li et al., ICLR 2021).
    `on_client_failure` says what becomes of a client whose loss or model is no longer finite: it ends the run, or the
    round continues without it (`skip`), and the client from what it had before. `missing_sites` is how many real sites
    may be silent in a round: it goes on with the others.
    """

    rounds: Repetitions = 10
    participation: Fraction = 0.8
    participants_rounding: Literal["floor", "ceil"] | None = None
    all_clients_last_round: bool | None = None
    between_cycles: Literal["fresh", "continue"] = "continue"
    client_momentum: Literal["kept", "reset"] = "kept"
    batch_norm: Literal["averaged", "local"] = "averaged"
    on_client_failure: Literal["fail", "skip"] = "fail"
    missing_sites: Whole = Field(default=0, ge=0)

    @model_serializer(mode="wrap")
    def _without_newer_defaults(self, handler: Any) -> dict[str, Any]:
        """Leave out what is the default and was added later, so that runs of older versions stay valid."""
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if key != "missing_sites" or value}


class AugmentationConfig(Section):
    """Random changes of every training image."""

    flip: bool = False
    crop_padding: Whole = Field(default=1, ge=0, le=64)


class TrainingConfig(Section):
    """Local training of one client in one round.

    `deterministic` has a GPU compute the same bits every time, more slowly; a CPU does so anyway. `checkpoint_every` is
    the least number of seconds between two checkpoints; 0 writes one after every round.
    """

    local_epochs: Repetitions = 2
    batch_size: Whole = Field(default=16, ge=1, le=1_000_000)
    batches: Literal["equal", "published"] = "equal"
    lr: Number = Field(default=0.05, ge=SMALLEST_RATE)
    lr_drop_epoch: Repetitions | None = None
    lr_drop_factor: Number = Field(default=0.1, ge=SMALLEST_RATE, le=1)
    momentum: Number = Field(default=0.9, ge=0, lt=1)
    weight_decay: Number = Field(default=5e-4, ge=0, le=10)
    augmentation: AugmentationConfig = AugmentationConfig()
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    processes: Annotated[AnyWhole, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    cuda_graphs: bool = True
    deterministic: bool = False
    checkpoint_every: Number = Field(default=1.0, ge=0, le=1e9)


class QueryTrainingConfig(Section):
    """Training of models for queries alone (`local_only`, `finetuned`, `distilled`), on a client's labelled samples.

    `epochs` null: as many local epochs as a client has in a cycle, at most 100. `lr` null: that of `training`.
    Everything else is as in `training`; the rate stays constant.
    """

    epochs: Repetitions | None = None
    lr: Number | None = Field(default=None, ge=SMALLEST_RATE)


def _as_tracking(value: Any) -> Any:
    """Let `tracking: off` (a bool to YAML) and `--params tracking=off` (a string) mean what they say."""
    switches = {"off": False, "false": False, "on": True, "true": True}
    if isinstance(value, str) and value.lower() in switches:
        value = switches[value.lower()]
    if isinstance(value, str):
        raise ValueError("allowed: on, off, or a section with keys")
    return {"enabled": value} if isinstance(value, bool) else value


class TrackingSection(Section):
    """What MLflow records. `uri` null means MLFLOW_TRACKING_URI, or a local store in the project's folder.

    `required` says whether a run may begin without its tracker. One that is lost later never ends a run.
    """

    enabled: bool = True
    uri: str | None = None
    required: bool = True
    experiment: str | None = None
    system_metrics: bool = True
    log_model: bool = True


TrackingConfig = Annotated[TrackingSection, BeforeValidator(_as_tracking)]

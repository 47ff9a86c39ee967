"""Checks the parameters as written and makes the configuration of one run, or messages that say what to mend."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kafal_pipeline.common.errors import UserError, allowed_instead, did_you_mean
from kafal_pipeline.config.base import Seed, Whole
from kafal_pipeline.config.features import FeaturesConfig
from kafal_pipeline.config.labels import AnnotationConfig, BudgetConfig
from kafal_pipeline.config.sections import (
    DatasetConfig,
    FederationConfig,
    ModelConfig,
    PartitionConfig,
    QueryTrainingConfig,
    TrackingConfig,
    TrackingSection,
    TrainingConfig,
)
from kafal_pipeline.config.strategy import Strategy

PRESETS: dict[str, dict[str, Any]] = {
    # The published code, and Algorithm 1 of the paper, differ in seven places (docs/kafal.md); one of them is here.
    "kafal_code": {
        "query": "ksas",
        "update": "kcfu",
        "federation": {"participants_rounding": "floor", "all_clients_last_round": True},
    },
    "kafal_paper": {
        "query": "ksas_paper",
        "update": "kcfu_paper",
        "federation": {"participants_rounding": "ceil", "all_clients_last_round": False},
    },
}

UNION_BRANCHES = {"float", "int", "constrained-float", "constrained-int", "literal['auto']"}
"""Parts that pydantic appends to the location of a problem in a union."""

OTHERS = ("compare", "run")
"""Keys next to a run's configuration: what is compared, and the saved run that a report is about."""


class Config(BaseModel):
    """The whole configuration of one run, with the preset's values filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Seed = 0
    cycles: Whole = Field(default=6, ge=1, le=250)
    preset: Literal["kafal_code", "kafal_paper"] = "kafal_code"
    query: Strategy
    update: Strategy
    dataset: DatasetConfig = DatasetConfig()
    partition: PartitionConfig = PartitionConfig()
    budget: BudgetConfig = BudgetConfig()
    annotation: AnnotationConfig = AnnotationConfig()
    # Left out where nothing is computed, so that runs of older versions stay valid.
    features: FeaturesConfig = Field(default=FeaturesConfig(), exclude_if=lambda section: section.network is None)
    model: ModelConfig = ModelConfig()
    federation: FederationConfig = FederationConfig()
    training: TrainingConfig = TrainingConfig()
    query_training: QueryTrainingConfig = QueryTrainingConfig()
    tracking: TrackingConfig = TrackingSection()
    restart: Literal[False, True, "if_changed"] = False

    @property
    def run_path(self) -> str:
        """Relative folder of this run's results: ``<dataset>/<query>-<update>/seed_<n>``."""
        return f"{self.dataset.folder}/{self.query.label}-{self.update.label}/seed_{self.seed}"

    @property
    def split_path(self) -> str:
        """Relative folder of this run's split: ``<dataset>/seed_<n>``; all strategies of one seed share it."""
        return f"{self.dataset.folder}/seed_{self.seed}"


class ConfigError(UserError):
    """Parameters that are not allowed; `problems` holds one ``(key, sentence)`` each."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{key}: {sentence}" if key else sentence for key, sentence in problems))


def resolve(parameters: Mapping[str, Any]) -> Config:
    """Check the parameters of a run, as Kedro loads them or of a resolved `Config`, and fill in the preset's values.

    Raises `ConfigError` with every problem found: unknown keys, wrong types, values out of bounds, contradictions.
    """
    values = {
        key: value
        for key, value in parameters.items()
        if key not in OTHERS and (value is not None or key not in {"query", "update"})
    }
    preset = PRESETS.get(str(values.get("preset", "kafal_code")), {})
    for key, value in preset.items():
        if isinstance(value, dict) and isinstance(values.get(key, {}), Mapping):
            given = {k: item for k, item in values.get(key, {}).items() if item is not None or k not in value}
            values[key] = {**value, **given}
        else:
            values.setdefault(key, value)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explained(error, Config)) from None
    if problems := list(_contradictions(config)):
        raise ConfigError(problems)
    return config


def _contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what no single section can see."""
    budget = config.budget
    if isinstance(budget.initial, float) and isinstance(budget.per_cycle, float):
        share = budget.initial + (config.cycles - 1) * budget.per_cycle
        if share > 1 + 1e-9:
            yield (
                "budget",
                f"initial + (cycles - 1) x per_cycle = {budget.initial} + {config.cycles - 1} x {budget.per_cycle} "
                f"= {share:.4g} of each client's samples is larger than its pool; it must be at most 1. "
                "Lower budget.initial, budget.per_cycle or cycles.",
            )
    if config.federation.batch_norm == "local" and config.model.normalisation == "group":
        yield (
            "federation.batch_norm",
            "found 'local', but with model.normalisation 'group' there is no batch norm to keep local. "
            "Set federation.batch_norm: averaged or model.normalisation: batch.",
        )


def explained(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, str]]:
    """Return a key and a sentence for each problem of `model`: of the branches of a union the first speaks for all."""
    problems: dict[str, str] = {}
    for problem in error.errors():
        key, sentence = _explain(dict(problem), model)
        problems.setdefault(key, sentence)
    if "preset" in problems:  # whatever a preset would have filled in is missing only because of it
        problems = {key: text for key, text in problems.items() if key not in {"query", "update"}}
    return list(problems.items())


def _explain(problem: dict[str, Any], model: type[BaseModel]) -> tuple[str, str]:
    """Turn one of pydantic's errors into a key and a sentence for a user."""
    location = [str(part) for part in problem["loc"]]
    kind, found, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        others = OTHERS if location[:-1] == [] and model is Config else ()
        keys = [*_keys_at(location[:-1], model), *others]
        return ".".join(location), f"unknown key. {did_you_mean(location[-1], keys)}"
    # A union's branches end in the branch's name: `budget.initial.float`.
    if location and (location[-1] in UNION_BRANCHES or location[-1].startswith("function-")):
        location = location[:-1]
    key = ".".join(location)
    if kind == "missing":
        return key, "is needed, and has no default."
    if kind == "literal_error":
        allowed = [part.strip(" '") for part in context["expected"].replace(" or ", ", ").split(",")]
        return key, f"found {found!r}. {did_you_mean(found, allowed)}"
    if kind == "value_error":
        message = str(context["error"])
        return key, message if isinstance(found, dict) else f"found {found!r}; {message}"
    if kind == "model_type":
        return key, f"found {found!r}; it must be a section with keys: {', '.join(_keys_at(location, model))}."
    quoted = "; yes, no, on and off mean true and false unless they are in quotes" if isinstance(found, bool) else ""
    return key, f"found {found!r}; allowed: {allowed_instead(problem['msg'])}{quoted}"


def _keys_at(location: list[str], model: Any) -> list[str]:
    """Return the keys allowed in the section at `location` of `model`."""
    for part in location:
        annotation = model.model_fields[part].annotation
        candidates = getattr(annotation, "__args__", (annotation,))
        model = next(item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel))
    return list(model.model_fields)

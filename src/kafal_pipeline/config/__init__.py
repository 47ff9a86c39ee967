"""Every parameter of a run: types, bounds, defaults and the rules between them."""

from kafal_pipeline.config.features import FeaturesConfig
from kafal_pipeline.config.labels import AnnotationConfig, BudgetConfig
from kafal_pipeline.config.resolve import Config, resolve
from kafal_pipeline.config.sections import (
    AugmentationConfig,
    DatasetConfig,
    FederationConfig,
    LongTailConfig,
    ModelConfig,
    PartitionConfig,
    TrackingConfig,
    TrainingConfig,
)
from kafal_pipeline.config.strategy import Strategy

__all__ = [
    "AnnotationConfig",
    "AugmentationConfig",
    "BudgetConfig",
    "Config",
    "DatasetConfig",
    "FeaturesConfig",
    "FederationConfig",
    "LongTailConfig",
    "ModelConfig",
    "PartitionConfig",
    "Strategy",
    "TrackingConfig",
    "TrainingConfig",
    "resolve",
]

"""Results of one run: measures, the learning curve, figures and the terminal's table. Shares are fractions of 1."""

from kafal_pipeline.evaluation.curve import CycleMetrics, class_table, client_table, learning_curve, summary
from kafal_pipeline.evaluation.figures import (
    client_classes_figure,
    confusion_figure,
    labelling_cost_figure,
    learning_curve_figure,
    queried_by_client_figure,
    queried_classes_figure,
)
from kafal_pipeline.evaluation.measures import (
    aulc,
    classification_measures,
    confusion_matrix,
    entropy,
)
from kafal_pipeline.evaluation.model_measures import evaluate
from kafal_pipeline.evaluation.table import format_table

__all__ = [
    "CycleMetrics",
    "aulc",
    "class_table",
    "classification_measures",
    "client_classes_figure",
    "client_table",
    "confusion_figure",
    "confusion_matrix",
    "entropy",
    "evaluate",
    "format_table",
    "labelling_cost_figure",
    "learning_curve",
    "learning_curve_figure",
    "queried_by_client_figure",
    "queried_classes_figure",
    "summary",
]

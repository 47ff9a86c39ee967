"""Which strategy is better, by how much, and is it more than luck? Tables, tests and a page."""

from kafal_pipeline.evaluation.comparison.analysis import Comparison, compare
from kafal_pipeline.evaluation.comparison.report import write_report
from kafal_pipeline.evaluation.comparison.runs import RunTables, load_runs

__all__ = ["Comparison", "RunTables", "compare", "load_runs", "write_report"]

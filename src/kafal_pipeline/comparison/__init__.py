"""Compares strategies over many runs: which is better, by how much, and whether it is more than luck."""

from kafal_pipeline.comparison.analysis import Comparison, compare
from kafal_pipeline.comparison.report.write import write_report
from kafal_pipeline.comparison.runs import RunTables, load_runs

__all__ = ["Comparison", "RunTables", "compare", "load_runs", "write_report"]

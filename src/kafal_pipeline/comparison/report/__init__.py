"""The page of a comparison: figures, tables, verdicts."""

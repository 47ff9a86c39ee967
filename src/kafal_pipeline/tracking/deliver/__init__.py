"""The helper process that delivers a run's journal to MLflow, and alone imports it."""

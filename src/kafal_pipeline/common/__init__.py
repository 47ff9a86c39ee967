"""Errors, files, locks, randomness, registry and processes: what three folders or more use."""

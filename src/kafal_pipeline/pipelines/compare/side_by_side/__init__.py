"""Runs of a comparison made next to each other in processes of their own."""

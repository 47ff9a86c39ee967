"""A run on disk: its folders, what made it, its lock, and whether it can resume."""

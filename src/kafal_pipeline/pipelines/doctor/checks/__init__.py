"""The checks: one file each, each returns what it found."""

"""The images on disk, memory-mapped, and their fingerprint."""

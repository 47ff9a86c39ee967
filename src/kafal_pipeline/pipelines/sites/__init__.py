"""The trial over real sites: Flower's ServerApp runs it, and its results lie where those of a simulated one do."""

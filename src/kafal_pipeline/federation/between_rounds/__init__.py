"""State that clients and the server keep between rounds, in memory and on disk."""

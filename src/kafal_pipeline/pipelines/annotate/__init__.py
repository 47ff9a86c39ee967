"""Labels by people: files in, and what has been answered so far."""

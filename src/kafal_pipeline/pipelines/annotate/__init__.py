"""Labels by people: the labelling page, files of other tools, and what has been answered so far."""

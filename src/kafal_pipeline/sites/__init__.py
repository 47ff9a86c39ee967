"""Real sites: the same trial with images, labels and momentum that stay where they are."""

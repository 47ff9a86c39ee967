"""Which strategy is better, by how much, and is it more than luck? Runs of several seeds as tables, tests and a page."""

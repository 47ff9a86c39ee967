"""A trial: clients, rounds, aggregation, queries and evaluation of one cycle after another."""

"""Labels bought and accuracy reached by each strategy, by class and by client."""

import math

import numpy as np
import pandas as pd

from kafal_pipeline.evaluation.measures import entropy


def queried_classes(classes: pd.DataFrame) -> pd.DataFrame:
    """Return the class mix of the labels that each strategy's queries bought, the initial pool left out.

    `classes`: one row a run, cycle and class; see `RunTables`. Returns a row for each strategy, a column for each
    class: its share of a run's bought labels, averaged over the seeds. NaN where nothing was bought.
    """
    bought = classes[classes["cycle"] > 0]
    counts = bought.pivot_table(index=["strategy", "seed"], columns="class", values="queried", aggfunc="sum")
    counts = counts.reindex(columns=sorted(classes["class"].unique()))
    totals = counts.sum(axis=1)
    shares = counts.div(totals.where(totals > 0), axis=0)
    return shares.groupby("strategy").mean().reindex(sorted(classes["strategy"].unique()))


def balance(shares: pd.DataFrame) -> pd.Series:
    """Return how even each row's shares are, as entropy over the largest possible one: 1 if equal, 0 for one class.

    >>> import pandas as pd
    >>> balance(pd.DataFrame([[0.5, 0.5], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    largest = math.log(shares.shape[1]) if shares.shape[1] > 1 else 1.0
    return shares.apply(lambda row: entropy(row) / largest if row.notna().all() else np.nan, axis=1)


def class_accuracy(classes: pd.DataFrame) -> pd.DataFrame:
    """Return the test accuracy of each class after the last cycle, averaged over the seeds: strategies by classes."""
    last = classes[classes["cycle"] == classes["cycle"].max()]
    table = last.groupby(["strategy", "class"])["accuracy"].mean().unstack("class")
    return table.reindex(columns=sorted(classes["class"].unique()))


def client_accuracy(classes: pd.DataFrame, clients: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy that the last global model has on each client's own class mix.

    It is the accuracy of each class on the test set, weighted by the client's shares of the classes: what the client
    would see if its data differ from the test set's in the classes' frequencies only. Classes that the test set lacks
    are left out.

    `classes`: one row a run, cycle and class; see `RunTables`. `clients`: one row a seed, client and class with
    `count`. Returns one row a run and client: `strategy`, `seed`, `client`, `samples`, `accuracy`. Client 0 of one seed
    is not client 0 of another: each seed has a split of its own.
    """
    last = classes.loc[classes["cycle"] == classes["cycle"].max()].dropna(subset=["accuracy"])
    joined = last.merge(clients, on=["seed", "class"])
    joined = joined.assign(hits=joined["accuracy"] * joined["count"])
    sums = joined.groupby(["strategy", "seed", "client"])[["count", "hits"]].sum().reset_index()
    accuracy = sums["hits"] / sums["count"].where(sums["count"] > 0)
    return sums.assign(accuracy=accuracy).drop(columns="hits").rename(columns={"count": "samples"})


def client_spread(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Return by strategy the worst, median and best client's accuracy and their `gap`, averaged over the seeds."""
    runs = accuracies.groupby(["strategy", "seed"])["accuracy"].agg(["min", "median", "max"])
    table = runs.groupby("strategy").mean()
    return table.rename(columns={"min": "worst", "max": "best"}).assign(gap=table["max"] - table["min"])

"""The table ``rounds``: one row for each round and client that trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def aggregated(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of clients whose models were aggregated: those that did not fail.

    `rounds`: a table made before clients could fail has no column ``failed``: all its clients were aggregated.

    >>> import pandas as pd
    >>> aggregated(pd.DataFrame({"client": [0, 1, 2], "failed": [False, True, False]}))["client"].tolist()
    [0, 2]
    """
    return rounds[~rounds["failed"].astype(bool)] if "failed" in rounds else rounds

"""Type names for annotations of nodes.

Kedro resolves a node's annotations when pipelines are registered. The real classes take seconds to import, which
`kedro registry list` and a mistake in a parameter need not wait for; so they stand here for the reader and the type
checker, and are `Any` at run time.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from torch import Tensor

    from kafal_pipeline.comparison import RunTables

    State = dict[str, Tensor]
    States = Mapping[str, State]
else:
    DataFrame = Figure = RunTables = State = States = Any

Parameters = dict[str, Any]

__all__ = ["DataFrame", "Figure", "Parameters", "RunTables", "State", "States"]

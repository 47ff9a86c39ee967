"""Makes a query of its name and options."""

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import create, lacking
from kafal_pipeline.config import Strategy
from kafal_pipeline.query.base import Query
from kafal_pipeline.query.names import QUERIES


def make_query(strategy: Strategy) -> Query:
    """Return the query that `strategy` names; UserError if there is none, or its options are not allowed."""
    query: Query = create("query", strategy.name, strategy.options, QUERIES)
    if not callable(getattr(query, "select", None)):
        raise UserError(lacking("query", strategy.name, type(query), "select"))
    return query

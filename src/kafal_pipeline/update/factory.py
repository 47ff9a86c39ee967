"""Makes an instance of an update from its name and options."""

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import create
from kafal_pipeline.config import Strategy
from kafal_pipeline.update.base import Update
from kafal_pipeline.update.names import UPDATES


def make_update(strategy: Strategy) -> Update:
    """Return the update that `strategy` names; UserError if there is none, or its options are not allowed."""
    update = create("update", strategy.name, strategy.options, UPDATES)
    if not isinstance(update, Update):
        raise UserError(f"update: found {strategy.name!r}, which does not derive from {Update.__module__}.Update.")
    return update

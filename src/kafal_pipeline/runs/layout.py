"""Names of cycles, in Kedro's namespaces and on disk."""

FIRST_NODE = "cycle_00.initial_pool"
"""The node that a run of its own begins with; those before it prepare data that runs share."""


def cycle_name(cycle: int) -> str:
    """Return the name of a cycle.

    Examples
    --------
    >>> cycle_name(3)
    'cycle_03'
    """
    return f"cycle_{cycle:02d}"

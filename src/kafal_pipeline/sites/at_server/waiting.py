"""Decides whether a trial goes on while people at some sites have not labelled enough."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import cast

from kafal_pipeline.common.errors import Waiting
from kafal_pipeline.sites.packets import Packet

WAITS = "The trial waits for labels"
"""Beginning of the message of a trial that waits for people."""

logger = logging.getLogger(__name__)


def those_done(names: Sequence[str], cycle: int, answers: Mapping[int, Packet], allowed: int) -> dict[int, Packet]:
    """Return the answers of the sites whose people have labelled enough.

    Parameters
    ----------
    names
        Of all sites.
    answers
        To the message ``annotate``, by the sites' numbers; a site that is not here has not answered.
    allowed
        How many sites may be missing, silent ones included.

    Raises
    ------
    Waiting
        If more sites than that are missing, or nobody has labelled enough.
    """
    missing = {client: cast(int, answer.values["missing"]) for client, answer in answers.items()}
    waits = {client: count for client, count in missing.items() if count != 0}
    told = ", ".join(f"site {names[client]} for {count}" for client, count in waits.items())
    if waits and (len(waits) + len(names) - len(answers) > allowed or len(waits) == len(answers)):
        raise Waiting(
            f"{WAITS} of cycle {cycle}: {told}.\nPeople at the sites give them: python -m kafal_pipeline.site annotate "
            "site.yml. Then give the same command again: the trial resumes.\n"
            f"Sites that may be missing: {allowed} (federation.missing_sites)."
        )
    if waits:
        logger.warning("cycle %d, labels: goes on with what is there (%s)", cycle, told)
    return {client: answer for client, answer in answers.items() if client not in waits}

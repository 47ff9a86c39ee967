"""Carries packets to sites of this process, for tests and for trying a site out without a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kafal_pipeline.common.errors import NotAllowed, UserError
from kafal_pipeline.sites.at_site.service import SiteService
from kafal_pipeline.sites.packets import Missing, Packet


class InProcess:
    """Carries packets as they are."""

    def __init__(self, sites: Sequence[SiteService]) -> None:
        self._sites = {service.site.name: service for service in sites}

    def sites(self) -> list[str]:
        """Return the names of the sites, sorted."""
        return sorted(self._sites)

    def ask(self, kind: str, requests: Mapping[str, Packet], place: str) -> Iterator[tuple[str, Packet | Missing]]:
        """Yield each site's answer."""
        for name, request in requests.items():
            try:
                yield name, self._sites[name].answer(kind, request)
            except (UserError, NotAllowed) as error:
                yield name, Missing(str(error))

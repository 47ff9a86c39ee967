"""Flower's ClientApp of a site: hands each message to the site's service."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from kafal_pipeline.common.errors import NotAllowed, UserError
from kafal_pipeline.sites.at_site.service import SiteService
from kafal_pipeline.sites.at_site.site_file import SiteFile, read_site
from kafal_pipeline.sites.listed import MESSAGES
from kafal_pipeline.sites.over_flower.limits import MB
from kafal_pipeline.sites.over_flower.wire import kind_of, to_packet, to_records, type_of
from kafal_pipeline.sites.packets import Packet

logger = logging.getLogger(__name__)

app = ClientApp()


def answered(message: Message, service: SiteService) -> Message:
    """Return a site's reply to a message; what it refuses, and why, is a reply too."""
    try:
        packet = service.answer(
            kind_of(message.metadata.message_type), to_packet(message.content, limit_of(service.site))
        )
    except (UserError, NotAllowed) as error:
        logger.error("refused %s: %s", message.metadata.message_type, error)
        packet = Packet({"refused": _without_paths(str(error), service)})
    return Message(to_records(packet), reply_to=message)


def limit_of(site: SiteFile) -> int:
    """Return the bytes of the largest message that a site takes."""
    return int(site.message_limit * MB)


def _without_paths(text: str, service: SiteService) -> str:
    """Return a sentence in which the site's folders have no names: these, and files in them, stay at the site."""
    for folder in (service.site.images, service.site.work):
        text = " ".join("(a file of the site)" if folder in word else word for word in text.split())
    return text


def handle(message: Message, context: Context) -> Message:
    """Answer a message, in the process that Flower starts for it."""
    file = context.node_config.get("site") or os.environ.get("KAFAL_SITE")
    if not file:
        raise ValueError("this SuperNode does not say where its site.yml is: --node-config 'site=\"/path/site.yml\"'")
    return answered(message, SiteService(read_site(Path(str(file)))))


for _type in map(type_of, MESSAGES):
    _category, _, _action = _type.partition(".")
    _register = {"train": app.train, "evaluate": app.evaluate, "query": app.query}[_category]
    (_register(_action) if _action else _register())(handle)

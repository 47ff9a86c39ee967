"""Commands of `python -m kafal_pipeline.site`."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.sites.at_site.site_file import read_site

FLOWERS = ("flwr", "httpx")
"""Packages that come with Flower, which is an extra."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do a command; a mistake of the user's is one message, and exit code 1."""
    parser = argparse.ArgumentParser("python -m kafal_pipeline.site", description="A site of a federation.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("check", "look whether a site could take part"),
        ("run", "take part, until Ctrl-C"),
        ("key", "make the site's key"),
    ):
        commands.add_parser(name, help=text, description=text).add_argument("site", type=Path, metavar="site.yml")
    for name, text in (
        ("annotate", "label on a page of this machine what a trial asks for, until Ctrl-C"),
        ("import", "import labels from a filled-in table, or an export of Label Studio or CVAT"),
        ("status", "show what trials have asked for, and what is labelled"),
    ):
        labelling = commands.add_parser(name, help=text, description=text)
        labelling.add_argument("site", type=Path, metavar="site.yml")
        if name == "import":
            labelling.add_argument("file", type=Path, metavar="FILE")
        labelling.add_argument("--run", metavar="NAME", help="of the trial, if not the one that has asked last")
    certificates = commands.add_parser("certificates", help="make the server's certificates")
    certificates.add_argument("folder", type=Path, metavar="FOLDER")
    certificates.add_argument("hosts", nargs="+", metavar="HOST", help="names and addresses that sites reach it by")
    for name, text in (
        ("demo", "make three sites with digits, their keys, and a server's files"),
        ("local", "run the demo of a folder: server and sites as processes of this machine"),
    ):
        commands.add_parser(name, help=text, description=text).add_argument("folder", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each look for a message
    try:
        return _do(options)
    except ModuleNotFoundError as error:
        if error.name not in FLOWERS:
            raise
        print('Flower is not installed here: pip install -e ".[flower]" (docs/federation.md).', file=sys.stderr)
        return 1
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _do(options: argparse.Namespace) -> int:
    if options.command == "check":
        from kafal_pipeline.sites.at_site.doctor import check

        return check(options.site)
    if options.command in ("annotate", "import", "status"):
        from kafal_pipeline.sites.at_site import labelling

        site = read_site(options.site)
        if options.command == "annotate":
            labelling.serve_page(site, options.run)
        elif options.command == "import":
            labelling.import_answers(site, options.file, options.run)
        else:
            labelling.show_status(site, options.run)
    elif options.command == "run":
        site = read_site(options.site)
        from kafal_pipeline.sites.over_flower.resident import run_site

        _sigterm_ends()
        run_site(site)
    elif options.command == "key":
        from kafal_pipeline.sites.over_flower.keys import make_site_key

        server = read_site(options.site).server
        make_site_key(Path(server.key) if server is not None else options.site.with_name("site.key"))
    elif options.command == "certificates":
        from kafal_pipeline.sites.over_flower.keys import make_certificates

        make_certificates(options.folder, options.hosts)
    elif options.command == "demo":
        from kafal_pipeline.sites.over_flower.local import make_demo

        make_demo(options.folder)
    else:
        from kafal_pipeline.sites.over_flower.local import run_demo

        _sigterm_ends()
        return run_demo(options.folder)
    return 0


def _sigterm_ends() -> None:
    """Have SIGTERM end what was started, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

"""Serves the labelling page on this machine until it is told to stop."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from kafal_pipeline.annotation.desk import Desk
from kafal_pipeline.annotation.page.leases import Leases
from kafal_pipeline.annotation.page.pictures import Pictures
from kafal_pipeline.annotation.page.queue import Queue
from kafal_pipeline.annotation.page.server import make_app
from kafal_pipeline.common.errors import UserError

HOST = "127.0.0.1"

LEASES = ".pages.json"
"""In the folder of the run's requests."""

RESUME = "kedro run --pipeline fal"


@dataclass(frozen=True)
class Outcome:
    """What was reached when the page ended: answers that came through it, images asked for, and how far these are."""

    answers: int
    asked: int
    answered: int
    conflicts: int

    @property
    def line(self) -> str:
        """The outcome as a line."""
        saved = "1 answer" if self.answers == 1 else f"{self.answers} answers"
        conflicts = f", {self.conflicts} in conflict" if self.conflicts else ""
        return f"{saved} saved; {self.answered} of {self.asked} images answered{conflicts}."


class Handler(WSGIRequestHandler):
    """Answers requests at once, and does not log them."""

    disable_nagle_algorithm = True  # else headers and body, sent apart, wait 40 ms for each other
    timeout = 300  # of a connection on which nothing comes

    def log(self, type: str, message: str, *args: object) -> None:
        """Say nothing."""


class PageServer:
    """The page's server; `address` is what people open."""

    def __init__(self, desk: Desk, client: int | str | None, port: int, resume: str) -> None:
        self.queue = Queue(desk, client, Leases(desk.folder / LEASES))
        _check_open(self.queue, resume)
        token = secrets.token_urlsafe(24)
        app = make_app(self.queue, Pictures(desk.images, desk.source), token, resume)
        with _listening(port) as listening:
            self._server: BaseWSGIServer = make_server(
                HOST, port, app, threaded=True, request_handler=Handler, fd=listening.fileno()
            )
        self.address = f"http://{HOST}:{self._server.port}/?token={token}"

    def run(self) -> None:
        """Answer requests until Ctrl-C or `stop`."""
        self._server.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        """Have `run` return, from another thread."""
        self._server.shutdown()


def serve(desk: Desk, on_ready: Callable[[str], None], resume: str = RESUME) -> Outcome:
    """Serve the page of `desk` until Ctrl-C or SIGTERM, and return what was reached; answers are on disk at once.

    Parameters
    ----------
    desk
        The run's; its section ``annotation`` has the client, the annotator's name and the port.
    on_ready
        Called with the page's address, which holds the token that every request needs.
    resume
        The command that resumes the run, for the page to show.

    Raises
    ------
    UserError
        If nothing is asked, all is answered, the client is not known or the port is taken.
    """
    server = PageServer(desk, desk.config.client, desk.config.port, resume)
    with _stopped_by_sigterm():
        on_ready(server.address)
        server.run()
        server.queue.close()
    return outcome(server.queue)


def outcome(queue: Queue) -> Outcome:
    """Return what was reached; answers that come in at this moment are waited for."""
    queue.refresh()
    progress = queue.progress()
    asked, left, conflicts = (sum(getattr(of, key) for of in progress) for key in ("asked", "open", "conflicts"))
    return Outcome(queue.taken, asked, asked - left - conflicts, conflicts)


def _check_open(queue: Queue, resume: str) -> None:
    folder, reached = queue.desk.folder, outcome(queue)
    if not reached.asked:
        raise UserError(
            f"{folder}: nothing is asked yet. Start the run with annotation.source=people ({resume} --params "
            "annotation.source=people,...): it ends with exit code 75 when it needs labels. Then give this command "
            "with the same --params."
        )
    if not queue.board.waiting:
        raise UserError(
            f"{folder}: all {reached.asked} images are answered. Give the command of the run again: {resume}"
        )


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens on this machine alone; whoever needs it keeps a copy."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"annotation.port: {port} cannot be listened on ({error.strerror}). Choose another one, or 0 for one "
                "that is free."
            ) from None
        listening.listen(128)
        yield listening


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the page as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

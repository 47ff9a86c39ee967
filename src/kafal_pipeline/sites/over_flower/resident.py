"""Runs a site: Flower's SuperNode, and next to it this process, which stays and answers all messages.

Flower would start a process for each message: seconds to import PyTorch, and it would run the code of the app that the
server sends along. Here nothing of that code runs: only this package answers.
"""

from __future__ import annotations

import logging
import secrets
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from flwr.app import Message
from flwr.app.error import Error
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from kafal_pipeline.common.errors import NotAllowed, UserError
from kafal_pipeline.sites.at_site.service import SiteService
from kafal_pipeline.sites.at_site.site_file import SiteFile
from kafal_pipeline.sites.over_flower import programs
from kafal_pipeline.sites.over_flower.client_app import answered, limit_of
from kafal_pipeline.sites.over_flower.limits import Limited

logger = logging.getLogger(__name__)

POLL = 0.25
"""Seconds between two looks for a message."""


RETRY, PAUSE = 120.0, 10.0
"""Seconds for which, and after which, a SuperNode is started again that has ended: a server takes one whose machine has
crashed for still connected, and lets it in again only after a while."""


def run_site(site: SiteFile, log: Path | None = None) -> None:
    """Run a site until the process is ended.

    `log` is the file of what the SuperNode says; None is the terminal.

    Raises
    ------
    UserError
        If site.yml names no server, a file of it is missing, or the server does not let it in.
    """
    if site.server is None:
        raise UserError("server: is needed to run a site: address, certificate and key (docs/federation.md).")
    for key in ("certificate", "key"):
        if not Path(getattr(site.server, key)).is_file():
            raise UserError(f"server.{key}: there is no file {getattr(site.server, key)}.")
    secret, home = Path(site.work) / "secret", Path(site.work) / "flower"
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    secret.unlink(missing_ok=True)
    secret.touch(0o600)
    secret.write_text(secrets.token_hex(32))
    arguments: list[str | Path] = [
        *("flower-supernode", "--superlink", site.server.address, "--root-certificates", site.server.certificate),
        *("--auth-supernode-private-key", site.server.key, "--isolation", "process"),
        *("--superexec-auth-secret-file", secret, "--host", "127.0.0.1", "--port", str(site.server.port)),
    ]
    service, end = SiteService(site), time.monotonic() + RETRY
    try:
        while True:
            begin, node = time.monotonic(), programs.start(arguments, home, log)
            try:
                _answer_all(service, node, f"127.0.0.1:{site.server.port}", secret.read_bytes())
            finally:
                programs.end([node])
            if time.monotonic() - begin > RETRY:  # it has been connected
                end = time.monotonic() + RETRY
            if time.monotonic() > end:
                raise UserError(
                    f"the server has not let this site in for {RETRY:g} s (exit code {node.returncode}; what the "
                    "SuperNode said is above). Is the key registered: flwr supernode register site.key.pub --name ...?"
                )
            logger.warning("the SuperNode has ended (exit code %s); again in %g s", node.returncode, PAUSE)
            time.sleep(PAUSE)
    finally:
        secret.unlink(missing_ok=True)


def _answer_all(service: SiteService, node: subprocess.Popen[bytes], address: str, secret: bytes) -> None:
    """Answer messages as they come, until the SuperNode ends."""
    protected = frozenset({"/flwr.proto.Runtime/AcquireTask"})
    client = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,  # on this machine alone
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=protected),
        ],
        retry_invoker=None,
    )
    request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
    logger.info("site %s: waits for messages", service.site.name)
    try:
        while node.poll() is None:
            try:
                task = client.AcquireTask(request)
            except httpx.HTTPError:  # it is starting or ending
                time.sleep(POLL)
                continue
            if task.HasField("task") and task.token:
                # In a thread: the message of a run that has ended meanwhile never comes, and would hold up the next.
                threading.Thread(target=_answer, args=(service, address, task.token), daemon=True).start()
            time.sleep(POLL)
    finally:
        client.close()


def _answer(service: SiteService, address: str, token: str) -> None:
    """Answer one message; what goes wrong is answered as an error."""
    whole = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            RuntimeTokenHttpInterceptor(token),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    client: Any = Limited(whole, limit_of(service.site))
    heart = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heart.start()
    status, details = SubStatus.COMPLETED, ""
    try:
        try:
            message, context, _, _ = pull_task_input(client)
        except ObjectPullError:
            if not client.refused:
                raise
            message, context = client.question()
        begin, what = time.perf_counter(), f"{message.metadata.message_type} ({message.metadata.group_id})"
        try:
            if client.refused:
                raise NotAllowed(f"the message is larger than {client.limit:,} bytes (message_limit in site.yml)")
            reply = answered(message, service)
        except NotAllowed as error:
            logger.error("refused %s: %s", what, error)
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error)), reply_to=message)
        except Exception as error:  # of this program's own: the server must not wait for it
            logger.exception("%s failed", what)
            status, details = SubStatus.FAILED, type(error).__name__
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, details), reply_to=message)
        push_message(client, reply, context)
        push_task_output(client, context, status, details)
        logger.info("%s: answered in %.2f s", what, time.perf_counter() - begin)
    except Exception as error:  # of Flower's: the run may have ended meanwhile
        logger.error("a message could not be taken, or its answer not be given: %s: %s", type(error).__name__, error)
    finally:
        heart.stop()
        client.close()

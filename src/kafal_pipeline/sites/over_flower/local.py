"""A whole federation on this machine: server and sites as processes, with TLS and node authentication."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import write_text
from kafal_pipeline.sites.at_server.waiting import WAITS
from kafal_pipeline.sites.demo import NAMES, write_demo
from kafal_pipeline.sites.over_flower import keys, programs

DONE = "Summary, tables, figures"
"""Beginning of the server's last line, if a trial has come to its end; Flower's own exit code says nothing of it."""

WAITING = 75
"""Exit code of a trial that waits for people: EX_TEMPFAIL of sysexits.h, as `kedro run` has it."""

HOST, LINK = "127.0.0.1", "local"
APP = Path(__file__).parents[4] / "flower"

PARAMETERS = """\
# What kedro run reads from conf/base/parameters.yml; what is not here has the package's default.
seed: 0
cycles: 3
query: ksas
update: kcfu
dataset: {name: digits_at_sites}
partition: {method: natural, clients: 3}
budget: {initial: 0.1, per_cycle: 0.05}
model: {name: cnn4, width: 16}
federation: {rounds: 3, participation: 0.67, missing_sites: 0}
training: {local_epochs: 2}
"""

CONNECTION = """\
[superlink]
default = "{link}"

[superlink.{link}]
address = "{address}"
root-certificates = "{certificate}"
"""

SERVER = """\
server:
  address: "{address}"
  certificate: ../server/ca.pem
  key: site.key
  port: {port}
"""


def make_demo(folder: Path) -> None:
    """Write the demo of `kafal_pipeline.sites.demo`, with keys, certificates and the files of a server."""
    folder = folder.absolute()
    sites = write_demo(folder)
    ports = free_ports(1 + len(sites))
    address = f"{HOST}:{ports[0]}"
    keys.make_certificates(folder / "server", ["localhost", HOST])
    for site, port in zip(sites, ports[1:], strict=True):
        keys.make_site_key(site.with_name("site.key"))
        write_text(site, site.read_text(encoding="utf-8") + SERVER.format(address=address, port=port))
    certificate = folder / "server" / keys.AUTHORITY
    write_text(
        folder / "server" / "flower" / "config.toml",
        CONNECTION.format(link=LINK, address=address, certificate=certificate),
    )
    write_text(folder / "federation.yml", PARAMETERS)
    print(f"{folder}: three sites, {', '.join(NAMES)}, and a server at {address}")
    print(f"To run it: python -m kafal_pipeline.site local {folder}")


def run_demo(folder: Path, params: str = "", patience: float = 90) -> int:
    """Start the server and the sites of a demo, run its trial, and end them; return the trial's exit code.

    `params` has other parameters than the file ``federation.yml``, ``key=value`` with commas between.

    Raises
    ------
    UserError
        If the folder has no demo, or a program does not start within `patience` seconds.
    """
    folder = folder.absolute()
    home, server = folder / "server" / "flower", folder / "server"
    if not (home / "config.toml").is_file():
        raise UserError(f"{folder}: has no demo. Make one: python -m kafal_pipeline.site demo {folder}")
    address = (home / "config.toml").read_text(encoding="utf-8").split('address = "')[1].split('"')[0]
    running: list[subprocess.Popen[bytes]] = []
    try:
        running.append(start_superlink(server, address))
        wait_for(address, running[0], patience)
        for name in NAMES:
            register(folder / name / "site.key.pub", name, home)
            running.append(start_site(folder / name))
        return run(folder, home, params)
    finally:
        programs.end(running[::-1])


def start_superlink(server: Path, address: str) -> subprocess.Popen[bytes]:
    """Start the SuperLink of a folder with certificates; its state survives it."""
    arguments: list[str | Path] = [
        *("flower-superlink", "--ssl-ca-certfile", server / keys.AUTHORITY),
        *("--ssl-certfile", server / keys.CERTIFICATE, "--ssl-keyfile", server / keys.KEY),
        *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        *("--database", server / "superlink.db", "--host", HOST, "--port", address.rpartition(":")[2]),
    ]
    return programs.start(arguments, server / "flower", server / "superlink.log")


def start_site(folder: Path) -> subprocess.Popen[bytes]:
    """Start a site; what it says goes to ``site.log``."""
    command = [sys.executable, "-m", "kafal_pipeline.site", "run", str(folder / "site.yml")]
    with (folder / "site.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def register(public: Path, name: str, home: Path) -> None:
    """Register a site's key under the site's name; one that is registered already stays."""
    command = [programs.program("flwr"), "supernode", "register", str(public), LINK, "--name", name]
    done = subprocess.run(
        command, env=programs.environment(home), capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode and "already" not in done.stdout + done.stderr:
        raise UserError(f"site {name}: its key could not be registered: {(done.stdout + done.stderr).strip()[-500:]}")


def run(folder: Path, home: Path, params: str) -> int:
    """Have the server run the trial, and show what it says; return 0 at its end, 75 if it waits for labels."""
    options = f'folder="{folder}" params="{params}"'
    command = [programs.program("flwr"), "run", str(APP), LINK, "--stream", "--run-config", options]
    code = 1
    with subprocess.Popen(
        command, env=programs.environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            code = 0 if line.startswith(DONE) else WAITING if line.startswith(WAITS) else code
    return code


def wait_for(address: str, process: subprocess.Popen[bytes], patience: float) -> None:
    """Wait until a program listens; raises UserError if it ends, or does not within `patience` seconds."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        with closing(socket.socket()) as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.2)
    raise UserError(f"the SuperLink does not listen at {address}; server/superlink.log says why.")


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens at now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()

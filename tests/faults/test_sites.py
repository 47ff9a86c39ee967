"""A federation of real processes on this machine, in which programs are killed, locked out and started again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

import yaml
from over_sites import simulated
from safetensors.numpy import load_file

from kafal_pipeline.annotation.answers import Answer, now
from kafal_pipeline.config import resolve
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.sites.at_site.people import desk_of, requests_of
from kafal_pipeline.sites.at_site.site_file import read_site
from kafal_pipeline.sites.demo import NAMES
from kafal_pipeline.sites.over_flower import keys, local, programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PARAMETERS = {
    "cycles": 2,
    "dataset": {"name": "demo"},
    "partition": {"method": "natural", "clients": 3},
    "budget": {"initial": 20, "per_cycle": 10},
    "model": {"name": "cnn4", "width": 8},
    "federation": {"rounds": 2, "participation": 0.67},
    "training": {"local_epochs": 1},
    "tracking": "off",
}


class Federation:
    """The demo's programs, each of which can be ended and started by itself."""

    def __init__(self, folder):
        local.make_demo(folder)
        (folder / "federation.yml").write_text(yaml.safe_dump(PARAMETERS))
        self.folder, self.server, self.home = folder, folder / "server", folder / "server" / "flower"
        self.address = (self.home / "config.toml").read_text().split('address = "')[1].split('"')[0]
        self.programs = {}
        self.start_server()
        for name in NAMES:
            local.register(folder / name / "site.key.pub", name, self.home)
            self.start(name)

    def start_server(self):
        self.programs["server"] = local.start_superlink(self.server, self.address)
        local.wait_for(self.address, self.programs["server"], 120)

    def start(self, name):
        self.programs[name] = local.start_site(self.folder / name)

    def kill(self, name):
        self.programs[name].kill()
        self.programs[name].wait()

    def run(self, params="", timeout=60, patience=180, limit=600):
        """Run the trial to its end, and return what the server said."""
        options = f'folder="{self.folder}" params="{params}" timeout={timeout}.0 patience={patience}.0'
        command = [programs.program("flwr"), "run", str(local.APP), "local", "--stream", "--run-config", options]
        environment = programs.environment(self.home)
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
        return done.stdout + done.stderr

    def config(self, **changes):
        return resolve({**PARAMETERS, **changes})

    def models(self, config):
        return [load_file(Layout(self.folder, config).global_model(cycle)) for cycle in range(config.cycles)]

    def once(self, name, text, do, limit=240):
        """Do something, in a thread, as soon as a site's log has a text that it has not now."""
        log = self.folder / name / "site.log"
        before = log.read_text().count(text) if log.exists() else 0

        def wait():
            end = time.monotonic() + limit
            while time.monotonic() < end:
                if log.exists() and log.read_text().count(text) > before:
                    return do()
                time.sleep(0.05)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
        found = Federation(tmp_path_factory.mktemp("federation") / "demo")
        yield found
        programs.end(list(found.programs.values())[::-1])


def expected(federation, config, tmp_path):
    data = config.dataset.model_copy(update={"path": str(federation.folder / "together")})
    training = config.training.model_copy(update={"device": "cpu", "processes": 1})
    steps = simulated(config.model_copy(update={"dataset": data, "training": training}), tmp_path / "simulated")
    return [step.result.global_state for step in steps if step.name == "train"]


def assert_bits(federation, config, tmp_path):
    for found, state in zip(federation.models(config), expected(federation, config, tmp_path), strict=True):
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: tensor.numpy().tobytes() for name, tensor in state.items()
        }


def test_the_bits_of_a_simulation(federation, tmp_path):
    said = federation.run("query=fairfal,update=scaffold")
    assert "Summary, tables, figures" in said, said
    assert_bits(federation, federation.config(query="fairfal", update="scaffold"), tmp_path)


def test_a_site_killed_in_a_round_is_missed_and_comes_back(federation):
    federation.once("north", "train", lambda: federation.kill("north"))
    said = federation.run("seed=1,federation.missing_sites=1", timeout=20)
    federation.start("north")
    assert "the round goes on without 1 of" in said, said
    assert "Summary, tables, figures" in said, said


def test_a_site_that_hangs_is_waited_for_only_so_long(federation):
    process = federation.programs["west"]
    stopping = federation.once("west", "train", lambda: process.send_signal(signal.SIGSTOP))
    try:
        said = federation.run("seed=4,federation.missing_sites=1", timeout=15)
    finally:
        process.send_signal(signal.SIGCONT)
    stopping.join()
    assert "did not answer within 15 s" in said, said
    assert "Summary, tables, figures" in said, said


def test_a_server_killed_in_a_round_resumes_with_the_same_bits(federation, tmp_path):
    killing = federation.once("east", "train", lambda: federation.kill("server"))
    said = federation.run("seed=2")
    killing.join()
    assert "Summary, tables, figures" not in said
    federation.start_server()
    said = federation.run("seed=2")
    assert "Summary, tables, figures" in said, said
    assert_bits(federation, federation.config(seed=2), tmp_path)


def stranger(federation, tmp_path, *, certificate=None):
    """Start a site with a key that nobody has registered, or another authority's certificate."""
    site = yaml.safe_load((federation.folder / "east" / "site.yml").read_text())
    site["images"] = str(federation.folder / "east" / "images")
    (port,) = local.free_ports(1)
    site["server"] |= {"port": port, "certificate": str(certificate or federation.server / keys.AUTHORITY)}
    (tmp_path / "site.yml").write_text(yaml.safe_dump(site))
    if certificate is None:
        keys.make_site_key(tmp_path / "site.key")
    else:
        (tmp_path / "site.key").write_bytes((federation.folder / "east" / "site.key").read_bytes())
    return local.start_site(tmp_path)


def test_a_key_that_is_not_registered_is_locked_out(federation, tmp_path):
    process = stranger(federation, tmp_path)
    try:
        assert process.wait(300) == 1
    finally:
        programs.end([process])
    assert "the server has not let this site in" in (tmp_path / "site.log").read_text()


def test_a_server_with_another_certificate_gets_nothing(federation, tmp_path):
    keys.make_certificates(tmp_path / "others", ["localhost", "127.0.0.1"])
    federation.kill("east")
    process = stranger(federation, tmp_path, certificate=tmp_path / "others" / keys.AUTHORITY)
    try:
        time.sleep(20)
        said = federation.run("seed=3", patience=10)
    finally:
        programs.end([process])
        federation.start("east")
    assert "certificate" in (tmp_path / "site.log").read_text().lower()
    assert "partition.clients: found 3, but these sites are there: north, west" in said, said


def test_two_trials_at_once(federation, tmp_path):
    said = {}
    threads = [
        threading.Thread(target=lambda seed=seed: said.update({seed: federation.run(f"seed={seed}", timeout=200)}))
        for seed in (5, 6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (5, 6):
        assert "Summary, tables, figures" in said[seed], said[seed]
        assert_bits(federation, federation.config(seed=seed), tmp_path / str(seed))


def test_a_message_larger_than_a_site_takes_is_refused_before_it_is_read(federation):
    path = federation.folder / "north" / "site.yml"
    before = path.read_text()
    path.write_text(before + "message_limit: 0.01\n")
    try:
        federation.kill("north")
        federation.start("north")
        said = federation.run("seed=6,model.width=32,federation.missing_sites=1,federation.participation=1.0")
    finally:
        path.write_text(before)
        federation.kill("north")
        federation.start("north")
    assert "the message is larger than 10,000 bytes (message_limit in site.yml)" in said, said
    assert "Summary, tables, figures" in said, said


def test_people_label_at_the_sites_between_two_runs(federation):
    before = {name: (federation.folder / name / "site.yml").read_text() for name in NAMES}
    try:
        for name, text in before.items():
            images = federation.folder / name / "images"
            shutil.copytree(images / "train", images.with_name("wards") / "unlabelled")
            shutil.copytree(images / "test", images.with_name("wards") / "test")
            more = "annotation: {source: people, file_names: original}\n"
            (federation.folder / name / "site.yml").write_text(
                text.replace("images: images", "images: wards").replace("work: work", "work: people") + more
            )
            federation.kill(name)
            federation.start(name)
        for cycle, count in ((0, 20), (1, 10)):
            said = federation.run("seed=7,annotation.source=people")
            assert f"The trial waits for labels of cycle {cycle}: site east for {count}, site north" in said, said
            for name in NAMES:
                site = read_site(federation.folder / name / "site.yml")
                (run,) = requests_of(site).iterdir()
                desk = desk_of(site, run.name, None)  # whose images only exports read
                for item in desk.requests()[-1].samples:
                    label = item.file.split("/")[1]
                    desk.store.add(0, [Answer(item.sample, "labelled", label, "ann", now(), "csv", cycle, "q")])
        said = federation.run("seed=7,annotation.source=people")
        assert "Summary, tables, figures" in said, said
    finally:
        for name, text in before.items():
            (federation.folder / name / "site.yml").write_text(text)
            federation.kill(name)
            federation.start(name)

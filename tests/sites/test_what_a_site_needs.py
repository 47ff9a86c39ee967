"""A site runs where only the packages of its own lock are installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

BEGIN = """
import sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
from kafal_pipeline.config import resolve
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.sites.at_server.clients import SitesAsClients
from kafal_pipeline.sites.at_server.members import gather
from kafal_pipeline.sites.at_site.service import SiteService
from kafal_pipeline.sites.at_site.site_file import read_site
from kafal_pipeline.sites.demo import write_demo
from kafal_pipeline.sites.in_process import InProcess

parameters = {{
    "cycles": 2, "query": "fairfal", "update": "scaffold", "dataset": {{"name": "demo"}},
    "partition": {{"method": "natural", "clients": 3}}, "budget": {{"initial": 20, "per_cycle": 10}},
    "model": {{"name": "cnn4", "width": 8}}, "federation": {{"rounds": 1}}, "training": {{"local_epochs": 1}},
}}
paths = write_demo(Path(sys.argv[1]))
"""

TRIAL = """
carrier = InProcess([SiteService(read_site(path)) for path in paths])
config = resolve(parameters)
members = gather(carrier, config)
print(len(list(Trial(config, members.images(), SitesAsClients(config, carrier, members, "trial")).run())))
"""

PEOPLE = """
from kafal_pipeline.annotation.answers import Answer, now
from kafal_pipeline.annotation.page.serve import PageServer
from kafal_pipeline.common.errors import Waiting
from kafal_pipeline.sites.at_site.people import desk_of

for path in paths:
    folder = path.with_name("images")
    (folder / "train").rename(folder / "unlabelled")
    path.write_text(path.read_text() + "annotation: {{source: people}}\\n")
services = [SiteService(read_site(path)) for path in paths]
carrier = InProcess(services)
config = resolve({{**parameters, "annotation": {{"source": "people"}}}})
members = gather(carrier, config)
try:
    SitesAsClients(config, carrier, members, "trial")
except Waiting:
    for service in services:
        desk = desk_of(service.site, "trial", service._work("trial").images)
        page = PageServer(desk, None, 0, "")
        for item in desk.requests()[-1].samples:
            desk.store.add(0, [Answer(item.sample, "labelled", "3", "ann", now(), "csv", 0, "q")])
labels = SitesAsClients(config, carrier, members, "trial").labels
print(f"waits, {{labels[0]}} labels, {{'a page' if page.address else ''}}")
"""


def names(lock):
    text = (ROOT / lock).read_text(encoding="utf-8")
    return {name.lower() for name in re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE)}


def said_by(script, tmp_path):
    """Return what a program says where only the packages of the site's lock are there."""
    site = names("requirements-site.lock")
    assert not site & {"kedro", "mlflow", "dvc", "pyarrow", "matplotlib", "torchvision"}
    absent = {name.replace("-", "_") for name in names("requirements.lock") - site - {"pyyaml"}}
    done = subprocess.run(
        [sys.executable, "-c", script.format(absent=absent), str(tmp_path / "demo")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def test_a_trial_without_what_the_sites_lock_lacks(tmp_path):
    assert said_by(BEGIN + TRIAL, tmp_path) == "6"


def test_labels_by_people_without_what_the_sites_lock_lacks(tmp_path):
    assert said_by(BEGIN + PEOPLE, tmp_path) == "waits, 20 labels, a page"

"""A site runs where only the packages of its own lock are installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
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

carrier = InProcess([SiteService(read_site(path)) for path in write_demo(Path(sys.argv[1]))])
config = resolve({{
    "cycles": 2, "query": "fairfal", "update": "scaffold", "dataset": {{"name": "demo"}},
    "partition": {{"method": "natural", "clients": 3}}, "budget": {{"initial": 20, "per_cycle": 10}},
    "model": {{"name": "cnn4", "width": 8}}, "federation": {{"rounds": 1}}, "training": {{"local_epochs": 1}},
}})
members = gather(carrier, config)
print(len(list(Trial(config, members.images(), SitesAsClients(config, carrier, members, "trial")).run())))
"""


def names(lock):
    text = (ROOT / lock).read_text(encoding="utf-8")
    return {name.lower() for name in re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE)}


def test_a_trial_without_what_the_sites_lock_lacks(tmp_path):
    site = names("requirements-site.lock")
    assert not site & {"kedro", "mlflow", "dvc", "pandas", "pyarrow", "matplotlib", "torchvision"}
    absent = {name.replace("-", "_") for name in names("requirements.lock") - site - {"pyyaml"}}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(absent=absent), str(tmp_path / "demo")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.strip() == "6", done.stderr

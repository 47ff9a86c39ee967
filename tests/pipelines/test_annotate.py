"""`kedro run --pipeline annotate`, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from desks import ask

ROOT = Path(__file__).parents[2]
RUN = "data/annotation/smoke/ksas-kcfu/seed_0"


def command(folder, *params):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "KEDRO"))}
    options = ["--pipeline", "annotate", "--env", "smoke", "--params", ",".join(["tracking=off", *params])]
    return subprocess.Popen(
        [sys.executable, "-m", "kedro", "run", *options],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, copy_of_project):
    return copy_of_project(tmp_path_factory.mktemp("project"))


def test_before_anything_is_asked_it_says_what_to_run(folder):
    output, errors = command(folder).communicate(timeout=120)
    assert "has asked people for nothing yet" in errors
    assert "kedro run --pipeline fal" in errors
    assert "Traceback" not in errors + output


def test_it_shows_the_address_takes_labels_and_ends_well_by_ctrl_c(folder, tmp_path):
    ask(tmp_path, range(3), name="St Mary")
    (folder / RUN).parent.mkdir(parents=True)
    (tmp_path / "requests").rename(folder / RUN)
    with command(folder, "annotation.client=St Mary", "annotation.annotator=Anna") as process:
        try:
            line = next(line for line in process.stdout if "http://" in line)
            base, token = line.split()[-1].split("?token=")
            body = {"page": "x", "sample": f"{0:012x}", "status": "labelled", "label": "horse"}
            headers = {"X-Token": token, "Content-Type": "application/json"}
            request = urllib.request.Request(f"{base}api/answer", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=20) as reply:
                assert reply.status == 200
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    *_, reached, following = output.strip().splitlines()
    assert reached == "1 answer saved; 1 of 3 images answered."
    assert following.startswith("Next: label 2 images")
    assert "Interrupted" not in output + errors
    assert "GET" not in output + errors
    (answer,) = (folder / "data/annotation/smoke/labels/client_000.jsonl").read_text().splitlines()
    assert json.loads(answer)["annotator"] == "Anna"

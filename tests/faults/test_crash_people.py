"""Runs whose labels people give, killed again and again, as are imports and whoever saves labels: nothing is lost.

make test-faults                       # 100 kills
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file

from kafal_pipeline.annotation.answers import AnswerStore
from kafal_pipeline.annotation.requests import read_requests
from kafal_pipeline.data import read_store

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KAFAL_KILLS", "100"))
RUN = "tutorial/random-fedavg/seed_0"
PARAMS = (
    "query=random,cycles=3,dataset.image_size=8,federation.rounds=3,training.processes=1,training.checkpoint_every=0,"
    "tracking=off,budget.initial=12,budget.per_cycle=5"
)
WRITER = """
import sys
from pathlib import Path
from kafal_pipeline.annotation.answers import Answer, AnswerStore, now
store, number = AnswerStore(Path(sys.argv[1])), int(sys.argv[2])
while True:
    sample = f"s{number:012x}"
    store.add(0, [Answer(sample, "labelled", "ape", "ann", now(), "page", 0, "q", comment="x" * (number % 3000))])
    print(sample, flush=True)  # whoever reads this shows the next image
    number += 1
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]


@pytest.fixture
def project(tmp_path, copy_of_project):
    def make(name):
        folder = copy_of_project(tmp_path / name)
        spec = importlib.util.spec_from_file_location("digit_files", ROOT / "examples/digit_files.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (folder / "data/01_raw").mkdir(parents=True)
        module.main(folder / "data/01_raw/tutorial")
        return folder

    return make


def kedro(folder, pipeline, params=PARAMS):
    command = [sys.executable, "-m", "kedro", "run", "--pipeline", pipeline, "--env", "tutorial", "--params", params]
    log = (folder / "log.txt").open("a")
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def fill_in(folder):
    """Fill in, in every table that is asked for, what is empty; return the tables."""
    with (folder / "data/01_raw/tutorial/answers.csv").open() as file:
        truth = {row["file"]: row["label"] for row in csv.DictReader(file)}
    images = read_store(folder / "data/02_intermediate/tutorial/images")
    files = dict(zip([*images.train_ids, *images.test_ids], [*images.train_files, *images.test_files], strict=True))
    tables = []
    for request in read_requests(folder / "data/annotation" / RUN):
        path = folder / "data/annotation" / RUN / request.name / "to_label.csv"
        rows = pd.read_csv(path, dtype=str, encoding="utf-8-sig")
        if rows["label"].isna().any():
            rows["label"] = rows["sample"].map(files).map(truth)
            rows.to_csv(path, index=False)
            tables.append(path)
    return tables


def results(folder):
    """What a seed and the answers decide: models, and pools without the times of the answers."""
    models = {
        path.relative_to(folder): {name: value.tobytes() for name, value in load_file(path).items()}
        for path in (folder / "data/06_models" / RUN).rglob("global_model.safetensors")
    }
    pools = {
        path.relative_to(folder): pd.read_parquet(path).drop(columns="labelled_at").to_csv()
        for path in (folder / "data/05_model_input" / RUN).rglob("pool.parquet")
    }
    return models, pools


def whole_run(folder, killed):
    """Do a run to its end; `killed` may end each command before it has ended, and returns its exit code."""

    def until_it_ends(*command):
        while (code := killed(partial(kedro, folder, *command))) == -signal.SIGKILL:
            pass
        assert code in (0, 75), (folder / "log.txt").read_text()[-3000:]
        return code

    while until_it_ends("fal") == 75:
        for table in fill_in(folder):
            assert until_it_ends("annotate_import", f"{PARAMS},annotation.file={table}") == 0


def test_killed_at_random(project, capsys):
    rng, kills, durations = random.Random(1), 0, []

    def undisturbed(begin):
        start = time.monotonic()
        code = begin().wait()
        durations.append(time.monotonic() - start)
        assert code in (0, 75)
        return code

    whole = project("whole")
    whole_run(whole, undisturbed)
    expected = results(whole)
    assert len(expected[0]) == 3

    def killed(begin):
        nonlocal kills
        process = begin()
        if kills < KILLS / 2:
            try:
                process.wait(rng.uniform(0.2, 1.2) * max(durations))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += process.wait() == -signal.SIGKILL
        return process.wait()

    rounds = 0
    while kills < KILLS / 2:
        folder = project(f"killed_{rounds}")
        whole_run(folder, killed)
        assert results(folder) == expected
        answers = AnswerStore(folder / "data/annotation/tutorial/labels").read_all()
        assert len({answer.sample for answer in answers}) == len(answers)
        assert not json.loads((folder / "data/07_model_output" / RUN / "provenance.json").read_text())["error"]
        rounds += 1
    with capsys.disabled():
        print(f"\n{kills} kills survived; {rounds} runs finished, with the bits and the labels of an undisturbed one")


def test_a_label_that_was_confirmed_survives_a_kill(tmp_path, capsys):
    rng, confirmed = random.Random(2), []
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for _ in range(max(2, KILLS // 2)):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(len(confirmed) + 1000)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        confirmed.append(process.stdout.readline().strip())
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        confirmed += process.communicate()[0].split()
        found = [answer.sample for answer in AnswerStore(tmp_path).read(0)]
        assert set(confirmed) <= set(found)
        assert len(found) == len(set(found))
    with capsys.disabled():
        print(f"\n{len(confirmed)} labels confirmed and kept, {max(2, KILLS // 2)} kills")

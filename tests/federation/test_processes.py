from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import psutil
import pytest
import torch
from simulated import query_cycle, train_cycle

from kafal_pipeline.common import processes
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import make_partition, open_store
from kafal_pipeline.data.pools import client_pools, initial_pool
from kafal_pipeline.federation.prediction import predict_test
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.tasks import PredictTask
from kafal_pipeline.lifecycle import resources
from kafal_pipeline.models.state import initial_state, to_arrays


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return open_store(DatasetConfig(), folder / "raw", folder / "images")


def end_server():
    """End the process that others are forked off: the next one to be started starts it again."""
    with contextlib.suppress(ImportError):
        from multiprocessing.forkserver import _forkserver  # missing on some systems

        _forkserver._stop()


def trial(digits, config):
    split = make_partition(digits.train_labels, config.partition, config.seed)
    pools = client_pools(initial_pool(split, digits.train_labels, config.budget, config.cycles, config.seed))
    start = initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0)
    with Workers(digits, config) as workers:
        state = train_cycle(config, pools, start, 0, workers)
        chosen = query_cycle(config, pools, state, 1, workers)
        predictions = predict_test(state.global_state, len(digits.test_labels), workers)
        return workers.count, state, chosen, predictions


def test_one_and_two_processes_give_the_same_bits(digits, make_config):
    options = {"partition": {"clients": 4, "min_size": 40}, "federation": {"rounds": 2, "participation": 0.75}}
    one, two = (trial(digits, make_config(**options, training={"processes": n})) for n in (1, 2))
    assert (one[0], two[0]) == (1, 2)
    for name, tensor in one[1].global_state.items():
        assert torch.equal(tensor, two[1].global_state[name]), name
    for client, state in one[1].local_states.items():
        assert all(torch.equal(tensor, two[1].local_states[client][name]) for name, tensor in state.items())
    for client, selection in one[2].selections.items():
        assert selection.samples.tolist() == two[2].selections[client].samples.tolist()
        assert selection.scores.tolist() == two[2].selections[client].scores.tolist()
    assert one[3].tolist() == two[3].tolist()


def test_the_query_asks_each_client_for_its_budget_of_unlabelled_samples(digits, make_config):
    config = make_config(partition={"clients": 4, "min_size": 40}, federation={"rounds": 1}, budget={"per_cycle": 0.1})
    split = make_partition(digits.train_labels, config.partition, config.seed)
    pools = client_pools(initial_pool(split, digits.train_labels, config.budget, config.cycles, config.seed))
    _, _, chosen, _ = trial(digits, config)
    for client, selection in chosen.selections.items():
        assert len(selection.samples) == -(-len(split[client]) // 10)
        assert set(selection.samples.tolist()) <= set(pools[client].unlabelled.tolist())


def test_ctrl_c_while_processes_start_does_not_reach_them(digits, make_config, capfd):
    """The signal goes to every process of the group; the parent alone takes it for an interruption."""
    state = to_arrays(initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0))
    with Workers(digits, make_config(training={"processes": 2})) as workers:
        running = workers.run("predict", [PredictTask(state, 0, 300)] * 4)
        stop = threading.Event()

        def interrupt():
            while not stop.wait(0.05):
                for child in list(workers._executor._processes or {}):
                    os.kill(child, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            assert len(list(running)) == 4
        finally:
            stop.set()
            thread.join()
    assert "Traceback" not in capfd.readouterr().err


def test_a_process_that_dies_is_reported_to_the_user(digits, make_config):
    state = to_arrays(initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0))
    with Workers(digits, make_config(training={"processes": 2})) as workers:
        workers.map("predict", [PredictTask(state, 0, 300)] * 4)
        os.kill(next(iter(workers._executor._processes)), signal.SIGKILL)
        with pytest.raises(UserError, match=r"ended unexpectedly.*training\.processes=1"):
            # Many, as the process that is left may finish some before anybody looks.
            workers.map("predict", [PredictTask(state, 0, 300)] * 500)


def test_tasks_of_a_pool_that_broke_are_left_to_it(digits, make_config, monkeypatch):
    """Its thread sets each one's error; at one that has been cancelled it would fail, with a traceback of its own."""
    state = to_arrays(initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0))
    monkeypatch.setattr("kafal_pipeline.federation.workers.pool.AHEAD", 10)  # more than the pool hands out
    with Workers(digits, make_config(training={"processes": 2})) as workers:
        submit, submitted = workers._submit, []
        monkeypatch.setattr(workers, "_submit", lambda *task: submitted.append(submit(*task)) or submitted[-1])
        monkeypatch.setattr(workers, "_wait", lambda futures: (_ for _ in ()).throw(BrokenProcessPool))
        with pytest.raises(UserError, match="ended unexpectedly"):
            workers.map("predict", [PredictTask(state, 0, 300)] * 20)
        assert len(submitted) == 20
        assert not any(future.cancelled() for future in submitted)


def servers():
    children = psutil.Process().children()
    return [child.pid for child in children if "multiprocessing.forkserver" in " ".join(child.cmdline())]


def test_the_process_that_others_are_forked_off_ends_and_comes_back(digits, make_config):
    config = make_config(partition={"clients": 2, "min_size": 40}, training={"processes": 2})
    task = PredictTask(to_arrays(initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0)), 0, 20)
    predicted = []
    for _ in range(2):
        with Workers(digits, config) as workers:
            predicted.append(workers.map("predict", [task])[0].tolist())
            assert len(servers()) == 1
        end_server()
        assert not servers()
    assert predicted[0] == predicted[1]


@pytest.mark.parametrize(
    ("training", "begun"),
    [({}, 1), ({"processes": 2, "device": "cpu"}, 1), ({"processes": 1}, 0), ({"device": "cuda"}, 0)],
)
def test_the_process_that_others_are_forked_off_is_begun_before_it_is_needed(
    digits, make_config, monkeypatch, training, begun
):
    monkeypatch.setattr(resources, "GPU_DRIVERS", ())
    end_server()
    config = make_config(training={"processes": "auto", **training})
    resources.prepare(config)
    deadline = time.monotonic() + 10
    while len(before := servers()) < begun and time.monotonic() < deadline:
        time.sleep(0.01)  # it is still this process's image, between fork and exec
    assert len(before) == begun
    if begun:
        with Workers(digits, make_config(training={"processes": 2})) as workers:
            task = PredictTask(
                to_arrays(initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0)), 0, 1
            )
            workers.map("predict", [task])
            assert servers() == before
    end_server()


@pytest.mark.parametrize(("asked", "count"), [("auto", 1), (2, 2)])
def test_a_container_has_no_more_processes_than_cores_unless_asked(digits, make_config, monkeypatch, asked, count):
    monkeypatch.setattr(processes, "cores", lambda: 1)  # counts what a container allows
    held = resources.Resources()
    assert held.workers(digits, make_config(training={"processes": asked, "device": "cpu"})).count == count
    held.close()


def test_no_process_is_begun_for_a_single_core(make_config, monkeypatch):
    monkeypatch.setattr("kafal_pipeline.common.processes.cores", lambda: 1)
    monkeypatch.setattr("kafal_pipeline.common.processes.begin_server", lambda _: pytest.fail("begun"))
    resources.prepare(make_config(training={"processes": "auto"}))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_ctrl_c_does_not_reach_what_is_begun_first():
    """In an interpreter of its own: Python's resource tracker, started in between, would let it through."""
    script = """
        import re
        from multiprocessing.forkserver import _forkserver
        from pathlib import Path
        from kafal_pipeline.common.processes import begin_server
        begin_server([])
        status = Path(f"/proc/{_forkserver._forkserver_pid}/status").read_text()
        print(int(re.search(r"SigBlk:\\s*(\\w+)", status)[1], 16) >> 1 & 1)
        """
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


def test_no_process_is_begun_where_a_gpu_trains(make_config, monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "GPU_DRIVERS", (str(tmp_path),))
    monkeypatch.setattr("kafal_pipeline.common.processes.begin_server", lambda _: pytest.fail("begun"))
    resources.prepare(make_config(training={"processes": 2}))


def test_threads_are_put_back(digits, make_config):
    before = torch.get_num_threads()
    trial(digits, make_config(partition={"clients": 4}, federation={"rounds": 1}))
    assert torch.get_num_threads() == before


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_children_end_when_the_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            from pathlib import Path
            from kafal_pipeline.config import DatasetConfig, resolve
            from kafal_pipeline.data import open_store
            from kafal_pipeline.federation.workers.tasks import PredictTask
            from kafal_pipeline.federation.workers.pool import Workers
            from kafal_pipeline.models.state import initial_state, to_arrays

            if __name__ == "__main__":
                folder = Path(sys.argv[1])
                data = open_store(DatasetConfig(), folder / "raw", folder / "images")
                workers = Workers(data, resolve({"training": {"processes": 2}}))
                state = to_arrays(initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0))
                workers.map("predict", [PredictTask(state, 0, 300)] * 8)
                print(*workers._executor._processes, flush=True)
                time.sleep(60)
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True, env=environment)
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    assert all(alive(pid) for pid in children)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in children)


IN_THE_MIDDLE = """
import gc, os, struct, time
from multiprocessing.queues import SimpleQueue

def die(parents_pid):
    # As if killed while a result is sent: its length is there, and a part of it.
    queue = next(item for item in gc.get_objects() if isinstance(item, SimpleQueue))
    os.write(queue._writer.fileno(), struct.pack("!i", 10**6) + b"begin")
    time.sleep(0.5)
    os._exit(1)
"""

PARENT = """
import sys, time
from pathlib import Path
from kafal_pipeline.config import DatasetConfig, resolve
from kafal_pipeline.data import open_store
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.federation.workers.tasks import PredictTask
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.state import initial_state, to_arrays
from in_the_middle import die

folder = Path(sys.argv[1])
data = open_store(DatasetConfig(), folder / "raw", folder / "images")
workers = Workers(data, resolve({"training": {"processes": 2}}))
task = PredictTask(to_arrays(initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0)), 0, 300)
workers.map("predict", [task] * 8)
workers._executor.submit(die, 0)
"""

ENDINGS = {
    "by an error": """
try:
    workers.map("predict", [task] * 100000)
except UserError as error:
    print(error, flush=True)
workers.close()
""",
    "by Ctrl-C": """
time.sleep(2)  # the pool reads what never comes, and its queue is full of tasks that nobody takes
for _ in range(20):
    workers._executor.submit(time.sleep, 0.1 + 0 * len(task.state))
print("A training process ended unexpectedly", flush=True)
workers.close()
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_that_dies_while_it_sends_holds_up_nothing(tmp_path, ending):
    (tmp_path / "in_the_middle.py").write_text(IN_THE_MIDDLE)
    (tmp_path / "parent.py").write_text(PARENT + ENDINGS[ending])
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, tmp_path / "parent.py", tmp_path],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "A training process ended unexpectedly" in done.stdout


def test_new_processes_leave_the_main_script_alone_and_the_environment_as_it_was(tmp_path):
    """No guard by `__name__`: were the script imported by its children, it would start children without end."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys
            from pathlib import Path
            from kafal_pipeline.config import DatasetConfig, resolve
            from kafal_pipeline.data import open_store
            from kafal_pipeline.federation.workers.tasks import PredictTask
            from kafal_pipeline.federation.workers.pool import Workers
            from kafal_pipeline.models.state import initial_state, to_arrays

            folder = Path(sys.argv[1])
            data = open_store(DatasetConfig(), folder / "raw", folder / "images")
            state = to_arrays(initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0))
            with Workers(data, resolve({"training": {"processes": 2}})) as workers:
                parts = workers.map("predict", [PredictTask(state, 0, 3)] * 4)
            print(len(parts), Path(__file__).name, __spec__, os.environ.get("GLIBC_TUNABLES"))
            """
        )
    )
    for asked in (None, "glibc.malloc.arena_max=2"):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("GLIBC_TUNABLES", None)
        if asked is not None:
            environment["GLIBC_TUNABLES"] = asked
        run = subprocess.run(
            [sys.executable, script, tmp_path], capture_output=True, text=True, env=environment, timeout=100, check=True
        )
        assert run.stdout.splitlines() == [f"4 unguarded.py None {asked}"]


@pytest.mark.parametrize("bound", [False, True])
def test_the_end_is_quick_unless_nanobind_would_take_it_for_a_leak(bound):
    """In a process of its own, since one that has imported torchvision has nanobind's types."""
    script = "import gc\nfrom kafal_pipeline.common.processes import end_quickly\n"
    script += 'kind = type("nb_meta", (type,), {"__module__": "nanobind"})\n' if bound else ""
    script += "end_quickly()\nprint(gc.get_freeze_count() > 0)"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(not bound)

"""The page's server as a whole: in a process, and as the pipeline `annotate`."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from desks import ask, make_desk, make_images, sample_of

from kafal_pipeline.annotation.page.leases import Leases
from kafal_pipeline.annotation.page.queue import Person, Progress, Queue
from kafal_pipeline.annotation.page.serve import PageServer, serve
from kafal_pipeline.common.errors import UserError

ROOT = Path(__file__).parents[3]


def post(address, what, **body):
    base, token = address.split("?token=")
    headers = {"X-Token": token, "Content-Type": "application/json"}
    body = {"annotator": "Anna", "page": "x", **body}
    request = urllib.request.Request(f"{base}api/{what}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def test_it_listens_on_this_machine_alone_under_a_new_token_each_time(tmp_path):
    ask(tmp_path, range(3))
    servers = [PageServer(make_desk(tmp_path, make_images(3)), None, 0, "again") for _ in range(2)]
    addresses = [server.address for server in servers]
    ports = [int(re.match(r"http://127\.0\.0\.1:(\d+)/\?token=[\w-]{30,}$", address)[1]) for address in addresses]
    assert len(set(ports)) == len({address.partition("=")[2] for address in addresses}) == 2
    for server in servers:
        thread = threading.Thread(target=server.run)
        thread.start()
        assert post(server.address, "start")["resume"] == "again"
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


def test_a_port_that_is_taken_is_refused(tmp_path):
    ask(tmp_path, range(3))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"annotation.port: {port}"):
            PageServer(make_desk(tmp_path, make_images(3)), None, port, "")


def test_without_requests_it_says_what_to_do_first(tmp_path):
    with pytest.raises(UserError, match="nothing is asked yet.*annotation.source=people"):
        serve(make_desk(tmp_path, make_images(3)), print)


def test_when_all_is_answered_it_says_how_to_resume(tmp_path):
    ask(tmp_path, range(2))
    desk = make_desk(tmp_path, make_images(2))
    queue = Queue(desk, None, Leases(tmp_path / "pages.json"))
    for row in range(2):
        queue.answer(Person("Anna", "x"), sample_of(row), "labelled", "cat")
    with pytest.raises(UserError, match="all 2 images are answered.*kedro run --pipeline fal"):
        serve(desk, print)


@pytest.mark.parametrize("client", [1, "1", "Hospital B"])
def test_one_client_alone_by_number_or_name(tmp_path, client):
    ask(tmp_path, [0, 1], client=0, name="Hospital A")
    ask(tmp_path, [2, 3], client=1, name="Hospital B")
    queue = Queue(make_desk(tmp_path, make_images(4)), client, Leases(tmp_path / "pages.json"))
    assert [item.asked.sample for item in queue.next(Person("Anna", "x"))] == [sample_of(2), sample_of(3)]
    assert queue.progress() == [Progress("client 1 (Hospital B)", 2, 2, 0, False)]


def test_an_unknown_client_is_refused_with_the_nearest(tmp_path):
    ask(tmp_path, [0], client=0, name="Hospital A")
    with pytest.raises(UserError, match="annotation.client: found 'Hospital B'.*Did you mean 'Hospital A'"):
        serve(make_desk(tmp_path, make_images(4), client="Hospital B"), print)


def test_images_come_by_client_then_test_images_then_rank(tmp_path):
    ask(tmp_path, [1, 0], [6], client=0)
    ask(tmp_path, [3, 2], [5], client=1)
    queue = Queue(make_desk(tmp_path, make_images(5, 2)), None, Leases(tmp_path / "pages.json"))
    assert list(queue.board.items) == [sample_of(row) for row in (6, 1, 0, 5, 3, 2)]


def test_a_given_name_is_recorded_whatever_the_page_says(opened):
    page = opened(annotator="Dr. Weber")
    anna = page.tab("Anna")
    assert anna.post("start").json["annotator"] == "Dr. Weber"
    anna.answer(anna.next()[0])
    assert page.store.read(0)[0].annotator == "Dr. Weber"


SCRIPT = """
import sys
from pathlib import Path
from desks import make_desk, make_images
from kafal_pipeline.annotation.page.serve import serve
folder = Path(sys.argv[1])
print(serve(make_desk(folder, make_images(3)), lambda address: print(address, flush=True)).line)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_a_normal_end_with_the_counts(tmp_path, end):
    ask(tmp_path, range(3))
    path = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests/support'}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(command, env=path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            sample = post(address, "next")["queue"][0]["sample"]
            post(address, "answer", sample=sample, status="labelled", label="dog")
            process.send_signal(end)
            output, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert output == "1 answer saved; 1 of 3 images answered.\n"
    assert errors == ""
    again = Queue(make_desk(tmp_path, make_images(3)), None, Leases(tmp_path / "requests/.pages.json"))
    assert len(again.next(Person("Anna", "next day"))) == 2  # nothing is held for pages that are gone


def test_ten_thousand_answers_do_not_slow_it_down(tmp_path):
    ask(tmp_path, range(10_000))
    images = make_images(10_000, size=1)
    desk = make_desk(tmp_path, images)
    queue, anna = Queue(desk, None, Leases(tmp_path / "pages.json")), Person("Anna", "x")
    from kafal_pipeline.annotation.answers import Answer

    desk.store.add(
        0, [Answer(sample_of(row), "labelled", "cat", "Ben", "2026-01-01", "csv", 0, "q") for row in range(9_900)]
    )
    queue.next(anna)
    begin = time.perf_counter()
    for row in range(9_900, 9_910):
        queue.answer(anna, sample_of(row), "labelled", "cat")
        queue.next(anna)
        queue.progress()
    assert (time.perf_counter() - begin) / 10 < 0.2  # 0.02 s on two slow cores

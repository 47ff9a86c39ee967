from __future__ import annotations

from types import SimpleNamespace

import pytest
from desks import ask, make_desk, make_images

from kafal_pipeline.annotation.page.leases import Leases
from kafal_pipeline.annotation.page.pictures import Pictures
from kafal_pipeline.annotation.page.queue import Queue
from kafal_pipeline.annotation.page.server import make_app

TOKEN = "secret-token"


class Tab:
    """A tab of a browser at the page."""

    def __init__(self, app, annotator, name):
        self.client, self.annotator, self.name, self.keep = app.test_client(), annotator, name, []

    def post(self, what, **body):
        body = {"annotator": self.annotator, "page": self.name, "keep": self.keep, **body}
        reply = self.client.post(f"/api/{what}", json=body, headers={"X-Token": TOKEN})
        if reply.is_json and "queue" in reply.json:
            self.keep = [item["sample"] for item in reply.json["queue"]]
        return reply

    def next(self):
        self.post("next")
        return self.keep

    def answer(self, sample, label="cat", **body):
        status = body.pop("status", "labelled")
        return self.post("answer", sample=sample, status=status, label=label if status == "labelled" else None, **body)


@pytest.fixture
def opened(tmp_path):
    """A function that opens the page of a desk that asks for rows of images."""

    def open_(rows=6, test=0, client=None, desk=None, **config):
        if desk is None:
            images = make_images(rows, test)
            ask(tmp_path, range(rows), range(rows, rows + test))
            desk = make_desk(tmp_path, images, **config)
        clock = SimpleNamespace(now=1000.0)
        queue = Queue(desk, client, Leases(desk.folder / ".pages.json", clock=lambda: clock.now))
        app = make_app(queue, Pictures(desk.images, desk.source), TOKEN, "kedro run --pipeline fal")

        def tab(annotator="Anna", name=None):
            return Tab(app, annotator, name or f"tab of {annotator}")

        return SimpleNamespace(app=app, queue=queue, desk=desk, tab=tab, clock=clock, store=desk.store)

    return open_

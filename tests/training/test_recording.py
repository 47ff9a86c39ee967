"""Recorded steps, with a recorder that needs no GPU: its replay calls the function again on the recorded inputs."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.training.recording import Recordings, _capture, cuda_recorder


class Replayed:
    def __init__(self, function):
        self.replay = function


@pytest.fixture
def seen():
    return []


@pytest.fixture
def append(seen):
    return lambda *inputs: seen.append([None if tensor is None else tensor.clone() for tensor in inputs])


def counting(made):
    def record(function):
        made.append(function)
        return Replayed(function)

    return record


def test_every_call_does_its_own_inputs(seen, append):
    recordings = Recordings(Replayed)
    for value in range(4):
        recordings.call("a", append, torch.tensor([value]), None)
    assert [(int(first), second) for first, second in seen] == [(value, None) for value in range(4)]


def test_the_first_call_is_done_as_it_is_and_the_second_recorded(append):
    made = []
    recordings = Recordings(counting(made))
    numbers = []
    for _ in range(4):
        recordings.call("a", append, torch.zeros(2))
        numbers.append(len(made))
    assert numbers == [0, 1, 1, 1]


def test_kinds_shapes_types_and_absent_inputs_are_recorded_apart(append):
    made = []
    recordings = Recordings(counting(made))
    calls = [
        ("a", torch.zeros(2), None),
        ("b", torch.zeros(2), None),
        ("a", torch.zeros(3), None),
        ("a", torch.zeros(2, dtype=torch.int64), None),
        ("a", torch.zeros(2), torch.zeros(2)),
    ]
    for _ in range(3):
        for kind, *inputs in calls:
            recordings.call(kind, append, *inputs)
    assert len(made) == len(calls)


def test_the_recording_used_longest_ago_gives_way(append):
    made = []
    recordings = Recordings(counting(made), most=2)
    for kind in ("a", "a", "b", "b", "a", "c", "c"):  # c takes the place of b, since a was used after it
        recordings.call(kind, append, torch.zeros(1))
    assert len(made) == 3
    recordings.call("a", append, torch.zeros(1))
    assert len(made) == 3
    recordings.call("b", append, torch.zeros(1))
    recordings.call("b", append, torch.zeros(1))
    assert len(made) == 4


class Graph:
    """Fails to end a recording in which something failed, as CUDA's do."""

    def __init__(self):
        self.calls, self.broken = [], False

    def capture_begin(self, **_):
        self.calls.append("begin")

    def capture_end(self):
        self.calls.append("end")
        if self.broken:
            raise RuntimeError("operation failed due to a previous error during capture")


def test_a_step_that_cannot_be_recorded_is_reported_with_its_own_cause():
    graph = Graph()

    def waits():
        graph.broken = True
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with pytest.raises(UserError, match=r"could not be recorded \(operation not permitted when stream is capturing\)"):
        _capture(graph, waits, (0, 0))
    assert graph.calls == ["begin", "end"]


def test_a_recording_that_fails_only_at_its_end_is_reported():
    graph = Graph()
    graph.broken = True
    with pytest.raises(UserError, match="training.cuda_graphs.*previous error during capture"):
        _capture(graph, lambda: None, (0, 0))


@pytest.mark.parametrize("broken", [False, True])
def test_other_errors_of_a_step_are_its_own(broken):
    graph = Graph()

    def mistaken():
        graph.broken = broken
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        _capture(graph, mistaken, (0, 0))
    assert graph.calls == ["begin", "end"]


class NotingGraph:
    """Notes what is done to it, and refuses replays at times at which CUDA's does."""

    def __init__(self, log):
        self.log, self.state = log, "new"

    def capture_begin(self, pool, capture_error_mode):
        assert self.state == "new"
        self.state = "recording"
        self.log.append(("begin", pool, capture_error_mode))

    def capture_end(self):
        assert self.state == "recording"
        self.state = "recorded"
        self.log.append(("end",))

    def replay(self):
        assert self.state == "recorded"
        self.log.append(("replay",))


@pytest.fixture
def log(monkeypatch):
    """What is asked of CUDA, in order."""
    log = []

    @contextlib.contextmanager
    def on_stream(stream):
        log.append(("stream", stream.name))
        yield
        log.append(("off", stream.name))

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (7, 7))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: NotingGraph(log))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(("wait", device)))
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    return log


def test_a_cuda_graph_is_recorded_on_its_stream(log):
    recorder = cuda_recorder(SimpleNamespace(name="lane 1", device="cuda:0"))
    recordings = Recordings(recorder)
    for value in range(3):
        recordings.call("a", lambda batch: log.append(("step", int(batch))), torch.tensor(value))
    begin = ("begin", (7, 7), "thread_local")
    recorded = [("wait", "cuda:0"), ("stream", "lane 1"), begin, ("step", 1), ("end",), ("off", "lane 1")]
    assert log == [("step", 0), *recorded, ("replay",), ("replay",)]


def test_graphs_of_a_lane_share_their_memory(log):
    recorder = cuda_recorder(SimpleNamespace(name="lane", device="cuda:0"))
    first, second = recorder(lambda: None), recorder(lambda: None)
    assert first is not second
    assert [entry[1] for entry in log if entry[0] == "begin"] == [(7, 7), (7, 7)]

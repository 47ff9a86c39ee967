"""What is shown of long work: a bar on a terminal, lines elsewhere, nothing of short work."""

import io
import logging
from contextlib import nullcontext

import pytest
from PIL import Image
from rich.console import Console

from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import open_store, progress
from kafal_pipeline.data.sources import image_files


@pytest.fixture
def console(monkeypatch):
    def show(terminal):
        console = Console(force_terminal=terminal, width=100, file=io.StringIO())
        monkeypatch.setattr("rich.get_console", lambda: console)
        return console

    return show


def ingest(tmp_path, root):
    return open_store(DatasetConfig(name="mine", path=str(root)), tmp_path, tmp_path / "images")


def test_lines_where_there_is_no_terminal(console, monkeypatch, caplog, tmp_path, image_folder):
    console(False)
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0)
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0)
    caplog.set_level(logging.INFO)
    ingest(tmp_path, image_folder)
    for what, count in (("Headers of image files", 10), ("Digests of image files", 10), ("Images stored", 6)):
        assert f"{what}: {count} of 10, " in caplog.text


@pytest.mark.parametrize("nested", [False, True])
def test_a_bar_on_a_terminal(console, monkeypatch, caplog, tmp_path, image_folder, nested):
    shown = console(True)
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0)
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0)
    caplog.set_level(logging.INFO)
    with shown.status("Looking ...") if nested else nullcontext():  # as the doctor does
        ingest(tmp_path, image_folder)
    assert "Images stored" in shown.file.getvalue()
    assert nested or "10/10" in shown.file.getvalue()
    assert "Images stored" not in caplog.text


def test_nothing_of_short_work(console, caplog, tmp_path, image_folder):
    shown = console(True)
    caplog.set_level(logging.INFO)
    ingest(tmp_path, image_folder)
    assert shown.file.getvalue() == ""
    assert "Images stored" not in caplog.text


def test_images_decoded_in_threads_are_in_order(image_folder, monkeypatch):
    """Large ones are decoded one at a time, and are the same."""
    paths = []
    for shade in range(40):
        paths.append(image_folder / f"{shade:02}.png")
        Image.new("L", (6, 4), shade).save(paths[-1])
    files = image_files.ImageFiles(tuple(paths), (4, 6, 1))
    assert files[3:40][:, 2, 2, 0].tolist() == list(range(3, 40))
    monkeypatch.setattr(image_files, "LARGE", 10)
    assert files[:][:, 2, 2, 0].tolist() == list(range(40))

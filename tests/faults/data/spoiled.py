"""Damaged and hostile data files: each is refused in one message that names it, soon and in bounded memory.

Every case makes a good file, spoils it in one way and has it read. What is to happen is said next to each way: most are
refused; a random flip of bits may also hit a byte that nobody reads, and then what is read must be what was written.
"""

from __future__ import annotations

import functools
import io
import pickle
import random
import re
import resource
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from kedro.framework.project import pipelines

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import open_store, read_store
from kafal_pipeline.settings import current_run

SECONDS = 30
"""Of the processor: other programs may keep it busy."""

MEMORY = 1 << 30
"""Bytes that reading a bad file may take beyond what the process holds; far below what the bombs claim."""


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def digest_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@contextmanager
def bounded():
    """Limit time and memory; a bomb that goes off is a failure, not the end of the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    start = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.process_time() - start < SECONDS


def refusal(action, *parts):
    """Return the message with which `action` is refused, after checking that `parts` stand in it."""
    with bounded(), pytest.raises(UserError) as raised:
        action()
    message = str(raised.value)
    missing = [part for part in parts if part not in message]
    assert not missing, message
    return message


def read_directly(folder, name, path):
    return open_store(DatasetConfig(name=name, path=str(path)), folder / "raw", folder / "store" / "images")


def read_by_command(folder, name, path):
    """Run the command; where it fails, check how, and raise its message."""
    from kafal_pipeline.cli import run

    pipelines.configure("kafal_pipeline.pipeline_registry")  # as in a new process
    stored = folder / "data/02_intermediate" / name
    shutil.rmtree(stored, ignore_errors=True)
    before = digest_of(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(current_run, "node", None)
        arguments = ["--pipelines", "fal", "--to-nodes", "data.load", "--params"]
        result = CliRunner().invoke(run, [*arguments, f"tracking=off,dataset.name={name},dataset.path={path}"])
    if result.exit_code == 0:
        return read_store(stored / "images")
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert len(re.findall(r"^Error: ", result.output, re.MULTILINE)) == 1, result.output
    assert digest_of(folder) == before
    raise UserError(" ".join(result.output.partition("Error: ")[2].split()))


def arrays():
    draw = np.random.default_rng(0)
    return {
        "train_images": draw.integers(0, 256, (30, 6, 6), dtype=np.uint8),
        "train_labels": np.arange(30) % 3,
        "test_images": draw.integers(0, 256, (9, 6, 6), dtype=np.uint8),
        "test_labels": np.arange(9) % 3,
    }


def archive_in(tmp_path, reading):
    path = tmp_path / "mine.npz"
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier/result.json").write_text("{}")

    def write(**others):
        np.savez_compressed(path, **{key: value for key, value in (arrays() | others).items() if value is not None})
        return path

    write()
    return path, write, functools.partial(reading, "mine", path)


def untouched(tmp_path, *also):
    """Check that a refusal has left nothing behind."""
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.npz", "earlier", *also}
    assert digest_of(tmp_path / "earlier") == {"result.json": b"{}"}
    assert not list((tmp_path / "store").glob("**/*")) or "store" in also


def header(shape, dtype="|u1"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def loaded(dataset):
    from kedro.io import DatasetError

    try:
        return dataset.load()
    except DatasetError as error:
        raise error.__cause__ from None


def damages(content):
    """Return ways to spoil any file."""
    draw = random.Random(0)
    middle = bytearray(content)
    middle[len(content) // 2 : len(content) // 2 + 20] = bytes(draw.randrange(256) for _ in range(20))
    return {
        "gone": None,
        "no byte": b"",
        "a byte": content[:1],
        "half": content[: len(content) // 2],
        "nearly all": content[:-5],
        "zeros": bytes(len(content)),
        "text": b"hello",
        "code": pickle.dumps(Trap("sprung")),
        "no beginning": content[10:],
    }

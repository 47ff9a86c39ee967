"""Writes files so that a reader sees the old or the new one, never half of one; explains why one cannot be written.

A disk that is full and a folder that must not be written are the user's to mend: they raise `CannotWrite`.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from kafal_pipeline.common.errors import UserError

ADVICE = {
    errno.ENOSPC: "Make room there",
    errno.EDQUOT: "Make room there, or have your quota raised",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f)",
    errno.EACCES: "Give yourself the permission to write there",
    errno.EPERM: "Give yourself the permission to write there",
    errno.EROFS: "Have it mounted for writing, or move the project",
}
"""Advice on each error of writing that is no fault of the program."""

ELSEWHERE = "Name a folder where files can be made"  # advice where the system has another reason, as in ``/proc``


class CannotWrite(UserError):
    """A file cannot be written: the disk is full, or writing there is not allowed."""

    @classmethod
    def because(cls, path: Path, code: int) -> Self:
        """Return the error for a file and the system's number of what is wrong."""
        free = shutil.disk_usage(_existing(path)).free / 1e6
        return cls(
            f"{path}: cannot be written: {os.strerror(code)} ({free:,.1f} MB are free there). "
            f"{ADVICE.get(code, ELSEWHERE)}, and give the same command again."
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise `CannotWrite` where writing the file or folder `path` fails for want of room or permission.

    Libraries wrap such errors in their own: what caused an error counts.
    """
    try:
        yield
    except Exception as error:
        code = _cause(error, path.absolute())
        if code is None:
            raise
        raise CannotWrite.because(path, code) from error


def check_writable(folder: Path) -> None:
    """Raise CannotWrite if no file can be made in `folder`, or where it would be made.

    Permissions alone would not tell: an administrator has all of them, and can write to ``/proc`` or a mount for
    reading as little as anyone.
    """
    place = _existing(folder)
    if not place.is_dir():
        raise CannotWrite(f"{folder}: cannot be written: {place} is a file where a folder should be. Move it away.")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise CannotWrite.because(place, error.errno or errno.EACCES) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file name next to `path`; on success it becomes `path`, on an error it is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync_file(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; on success it takes the place of `path`, on an error it is removed."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        old = temporary.with_name(f"{temporary.name.removesuffix('.tmp')}.old.tmp")
        try:
            yield temporary
            temporary.chmod(0o755)
            if os.path.lexists(path):
                path.replace(old)  # at once, so that no reader finds half of it
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            for left in (temporary, old):
                with suppress(OSError):
                    remove(left)


def remove_temporary(folder: Path) -> None:
    """Remove, at every depth, the temporary files and folders of processes that were killed while they wrote."""
    for path in list(folder.rglob(".*.tmp")):
        with suppress(OSError):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it, if it is there; of a link the link alone, never what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def dangling(path: Path) -> str | None:
    """Return, as a message, that `path` or a folder above it is a link to something that is not there."""
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            return f"{place}: is a link to {os.readlink(place)}, which is not there. Make it, or remove the link."
    return None


def sync_file(path: Path) -> None:
    """Have what a file holds survive a power failure."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power failure, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, all of it or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Return the JSON object that a file holds; UserError with `advice` if it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())[:100]}). {advice}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged (it holds no mapping). {advice}")
    return content


def write_json(path: Path, value: Any, **options: Any) -> None:
    """Write `value` as JSON, all of it or nothing; not-a-number and infinities are refused, since JSON has none."""
    write_text(path, json.dumps(value, allow_nan=False, **options) + "\n")


def write_with(path: Path, writer: Callable[[Path], object]) -> None:
    """Let `writer` write the file it is given, then put it in the place of `path`."""
    with replacing(path) as temporary:
        writer(temporary)


def _existing(path: Path) -> Path:
    """Return `path`, or the nearest of its parents that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _cause(error: BaseException | None, path: Path) -> int | None:
    """Return the number of the system's error behind an exception, if it is about writing `path`."""
    while error is not None:
        if isinstance(error, UserError) and not isinstance(error, CannotWrite):
            return None
        code = _number(error)
        if code in ADVICE:
            named = getattr(error, "filename", None)
            return code if not isinstance(named, str) or _near(Path(named).absolute(), path) else None
        error = error.__cause__
    return None


def _number(error: BaseException) -> int | None:
    """Return the system's number of an error; safetensors, which is no Python, tells it in its text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(found[1]) if found else None


def _near(named: Path, path: Path) -> bool:
    """Tell whether an error's file has to do with writing `path`: it lies next to or below it, or is a folder above.

    What is read while a file is written, such as a source of images, may fail for want of permission too.
    """
    return path.parent in named.parents or named in path.parents


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

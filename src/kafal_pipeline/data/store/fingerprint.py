"""Digests of the files of a source and of a store, with notes that save reading them again."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kafal_pipeline.common.files import CannotWrite, file_digest, write_json
from kafal_pipeline.data.progress import progress
from kafal_pipeline.data.sources import Source


def file_digests(source: Source) -> dict[str, str]:
    """Return the SHA-256 of each of a source's files, by its name below the source's root."""
    digests = {}
    with progress("Digests of image files", len(source.files)) as advance:
        for path in source.files:
            digests[_name(source, path)] = file_digest(path)
            advance(1)
    return digests


def content_digest(source: Source, digests: Mapping[str, str] | None = None) -> str:
    """Return a digest of the names and bytes of a source's files; it is the same on every machine.

    `digests`: those of `file_digests`, where they are there already.
    """
    of_files = file_digests(source) if digests is None else digests
    return _digest([source.kind, *(f"{name}\0{digest}" for name, digest in of_files.items())])


def stat_digest(source: Source) -> str:
    """Return a digest of the names, sizes and times of a source's files, without opening any."""
    lines = [source.kind]
    for path in source.files:
        stat = path.stat()
        lines.append(f"{_name(source, path)}\0{stat.st_size}\0{stat.st_mtime_ns}")
    return _digest(lines)


def unchanged(source: Source, content: str, note: Path) -> bool:
    """Tell whether a source still has the content digest `content`.

    The file `note` remembers sizes and times of files that were found to have it, so that they are read again only
    when one of these differs. It stands next to the store, not in it: what DVC hashes must not depend on times.
    """
    stat = stat_digest(source)
    if _read_note(note) == {"content": content, "stat": stat}:
        return True
    if content_digest(source) != content:
        return False
    write_note(note, content, stat)
    return True


def as_written(folder: Path, arrays: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the files of a store that are not what was written; none if all are.

    As for sources, a note next to the store remembers sizes and times of files whose digests have been compared.

    `arrays`: what its description says of each array: ``sha256`` of ``<name>.npy``.
    """
    files = {f"{name}.npy": array["sha256"] for name, array in sorted(arrays.items())}
    content, stat = _stored(folder, files)
    if _read_note(_next_to(folder)) == {"content": content, "stat": stat}:
        return []
    others = [name for name, digest in files.items() if file_digest(folder / name) != digest]
    if not others:
        with contextlib.suppress(CannotWrite):  # a store that may only be read is read each time
            write_note(_next_to(folder), content, stat)
    return others


def note_written(folder: Path, arrays: Mapping[str, Mapping[str, Any]]) -> None:
    """Remember that the files of a store, whose digests were taken while they were written, need not be read again."""
    files = {f"{name}.npy": array["sha256"] for name, array in sorted(arrays.items())}
    write_note(_next_to(folder), *_stored(folder, files))


def _stored(folder: Path, files: Mapping[str, str]) -> tuple[str, str]:
    """Return the content digest and the stat digest of a store's files, given the SHA-256 of each."""
    stats = {name: (folder / name).stat() for name in files}
    return (
        _digest([f"{name}\0{digest}" for name, digest in files.items()]),
        _digest([f"{name}\0{found.st_size}\0{found.st_mtime_ns}" for name, found in stats.items()]),
    )


def _next_to(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.stored.json")


def write_note(note: Path, content: str, stat: str) -> None:
    """Remember that files with the stat digest `stat` have the content digest `content`."""
    write_json(note, {"content": content, "stat": stat})


def _read_note(note: Path) -> object:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _name(source: Source, path: Path) -> str:
    return path.relative_to(source.root).as_posix()


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()

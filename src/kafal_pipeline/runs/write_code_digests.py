"""Writes the code digest of each compared strategy: `python -m kafal_pipeline.runs.write_code_digests <folder>`.

One file a strategy, ``<query>-<update>.txt``, with a digest. A stage of ``dvc.yaml`` makes them and the runs depend on
them, so that DVC reruns what a change of the code concerns and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import OmegaConf

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import write_text
from kafal_pipeline.config.compare import resolve_comparison
from kafal_pipeline.runs.code_digest import sources_digest


def write_digests(conf: Path, folder: Path) -> list[Path]:
    """Write the digests of the strategies that the base parameters in `conf` compare; others in `folder` go."""
    files = sorted((conf / "base").glob("parameters*.yml"))
    parameters = OmegaConf.to_container(OmegaConf.merge(*(OmegaConf.load(file) for file in files)))
    _, runs = resolve_comparison(parameters)  # type: ignore[arg-type]
    digests = {folder / f"{run.query.label}-{run.update.label}.txt": run for run in runs}
    for path in set(folder.glob("*.txt")) - set(digests):
        path.unlink()
    for path, run in digests.items():
        write_text(path, f"{sources_digest(run)}\n")
    return list(digests)


if __name__ == "__main__":
    try:
        write_digests(Path("conf"), Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"Error: {error}")

"""The pipeline of the labelling page, and its node."""

from __future__ import annotations

from pathlib import Path

import click
from kedro.pipeline import Pipeline, node

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.lifecycle.resources import desk_of
from kafal_pipeline.pipelines.annotations import Parameters


def create_pipeline(root: Path = Path()) -> Pipeline:
    """Return the pipeline ``images, parameters -> nothing``, which serves the page until it is stopped.

    Relative paths start from `root`, the project's folder.
    """

    def annotate(images: ImageData, parameters: Parameters) -> None:
        serve_page(images, parameters, root)

    return Pipeline([node(annotate, ["images", "parameters"], None, name="annotate.page", tags=["annotate"])])


def serve_page(images: ImageData, parameters: Parameters, root: Path = Path()) -> None:
    """Serve the page on which people label what the run asks for, until Ctrl-C; then say how far they are.

    Raises `UserError` if nothing is asked, or all of it is answered.
    """
    from kafal_pipeline.annotation.page.serve import serve  # Flask takes a moment to import

    outcome = serve(desk_of(resolve(parameters), images, root), _show)
    click.echo(f"\n{outcome.line}")


def _show(address: str) -> None:
    """Say where the page is."""
    click.echo(f"\nLabel the images here:  {address}\n\nCtrl-C ends it. Every answer is on disk at once.")

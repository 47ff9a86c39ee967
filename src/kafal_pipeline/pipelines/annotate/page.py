"""The pipeline of the labelling page, and its node."""

from __future__ import annotations

from pathlib import Path

import click
from kedro.pipeline import Pipeline, node

from kafal_pipeline.config import Config, resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.lifecycle.resources import desk_of
from kafal_pipeline.pipelines.annotate.status import next_command, requests_of
from kafal_pipeline.pipelines.annotations import Parameters
from kafal_pipeline.runs.layout import Layout


def create_pipeline(root: Path = Path(), options: str = "") -> Pipeline:
    """Return the pipeline ``images, parameters -> closing_lines``, which serves the page until it is stopped.

    Relative paths start from `root`, the project's folder. `options`: those of the command line that name the run.
    """

    def annotate(images: ImageData, parameters: Parameters) -> str:
        return serve_page(images, resolve(parameters), root, options)

    return Pipeline(
        [node(annotate, ["images", "parameters"], "closing_lines", name="annotate.page", tags=["annotate"])]
    )


def serve_page(images: ImageData, config: Config, root: Path = Path(), options: str = "") -> str:
    """Serve the page on which people label what the run asks for, until Ctrl-C; then return how far they are.

    Raises `UserError` if nothing is asked, or all of it is answered.
    """
    from kafal_pipeline.annotation.page.serve import serve  # Flask takes a moment to import

    layout = Layout(root, config)
    requests_of(layout)
    desk = desk_of(config, images, root)
    reached = serve(desk, _show, f"kedro run --pipeline fal{options}")
    return f"{reached.line}\n{next_command(layout, desk.requests(), desk.verdicts(), options)}"


def _show(address: str) -> None:
    """Say where the page is."""
    click.echo(f"\nLabel the images here:  {address}\n\nCtrl-C ends it. Every answer is on disk at once.")

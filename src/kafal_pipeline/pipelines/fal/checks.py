"""Checks results that earlier nodes left on disk: pools of this run's images, models of the network that it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data import check_pool
from kafal_pipeline.runs.damaged import REPAIR
from kafal_pipeline.runs.layout import Layout, cycle_name

if TYPE_CHECKING:
    from kafal_pipeline.config import Config
    from kafal_pipeline.data import ImageData
    from kafal_pipeline.models.state import State
    from kafal_pipeline.pipelines.annotations import DataFrame

Check = Callable[["State", str], "State"]
"""Returns a state as it is, or says which file holds another network's; the name is that of the file."""


@contextmanager
def in_table(config: Config, cycle: int, name: str) -> Iterator[None]:
    """Turn a ValueError about a table of a cycle's ``pool`` or ``queried`` into one that names its file."""
    try:
        yield
    except ValueError as error:
        run = Layout(Path(), config)
        folder = (run.pools if name == "pool" else run.outputs) / cycle_name(cycle)
        raise UserError(f"{folder / name}.parquet: {error}. {REPAIR}") from error


def checked_pool(pool: DataFrame, config: Config, images: ImageData, cycle: int) -> DataFrame:
    """Return the pool of a cycle as it is.

    Raises
    ------
    UserError
        If it is no pool of these images.
    """
    with in_table(config, cycle, "pool"):
        check_pool(pool, images.train_labels, cycle)
    return pool


def checker(config: Config, images: ImageData, cycle: int) -> Check:
    """Return what checks the models of a cycle.

    Raises
    ------
    UserError
        By the check: if a state has other tensors than the network, or tensors of other shapes or types.
    """
    from kafal_pipeline.models.state import initial_state

    network = initial_state(
        config.model.model_copy(update={"pretrained": None}),
        in_channels=images.channels,
        num_classes=images.num_classes,
        seed=config.seed,
        cycle=0,
        image_size=images.train_images.shape[1:3],
    )
    folder = Layout(Path(), config).models / cycle_name(cycle)

    def check(state: State, name: str) -> State:
        for tensor in sorted(network.keys() | state.keys()):
            expected, found = (_described(side, tensor) for side in (network, state))
            if expected != found:
                raise UserError(
                    f"{folder / name}.safetensors: {tensor} is {found}, but {expected} in the model of this run "
                    f"(model.name: {config.model.name}). {REPAIR}"
                )
        return state

    return check


def _described(state: State, name: str) -> str:
    if name not in state:
        return "absent"
    return f"{tuple(state[name].shape)} {str(state[name].dtype).removeprefix('torch.')}"

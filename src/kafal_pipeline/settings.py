"""Kedro's settings; see https://docs.kedro.org/en/stable/configure/settings/."""

from kafal_pipeline.lifecycle.current_run import CurrentRun
from kafal_pipeline.lifecycle.hooks import ProjectHooks

current_run = CurrentRun()
"""The run of this process: Kedro registers pipelines, and interpolates paths in the catalog, without arguments."""

HOOKS = (ProjectHooks(current_run),)

DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry",)

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment changes the keys it names and leaves their neighbours alone.
    "merge_strategy": {"parameters": "soft"},
    "custom_resolvers": {"run": current_run.path},
}

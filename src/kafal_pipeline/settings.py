"""Kedro's settings; see https://docs.kedro.org/en/stable/configure/settings/."""

from kafal_pipeline.lifecycle import current_run
from kafal_pipeline.lifecycle.result_hooks import SavedFiles
from kafal_pipeline.lifecycle.run_hooks import ProjectHooks
from kafal_pipeline.lifecycle.tracking_hooks import TrackingHooks

# Hooks run last in, first out: the project's own check of the parameters comes before the tracker starts.
HOOKS = (SavedFiles(), TrackingHooks(), ProjectHooks())

DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry",)

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment changes the keys it names and leaves their neighbours alone.
    "merge_strategy": {"parameters": "soft"},
    "custom_resolvers": {"run": current_run.path},
}

"""One `kedro run`: its parameters, hooks, runner, resources, progress and messages."""

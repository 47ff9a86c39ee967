"""Let `python -m kafal_pipeline` run the project as `kedro run` does, also where it is installed as a package."""

import sys
from pathlib import Path

from kedro.framework.cli.utils import find_run_command
from kedro.framework.project import configure_project


def main() -> None:
    """Run the project's `run` command with this process's arguments."""
    package = Path(__file__).parent.name
    configure_project(package)
    find_run_command(package)(sys.argv[1:])


if __name__ == "__main__":
    main()

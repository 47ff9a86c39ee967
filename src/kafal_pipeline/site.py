"""Let `python -m kafal_pipeline.site` do a site's commands."""

import sys

from kafal_pipeline.sites.command import main

if __name__ == "__main__":
    sys.exit(main())

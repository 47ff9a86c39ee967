"""The labelling page: a small web server on this machine alone, and the page that it shows in a browser."""

"""The server's side: the clients of a trial, each at a site of its own."""

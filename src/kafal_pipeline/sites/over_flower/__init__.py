"""Flower carries the messages: apps of the server and of sites, keys and certificates, processes of one machine."""

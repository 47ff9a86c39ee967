"""Requests and answers as files of other tools."""

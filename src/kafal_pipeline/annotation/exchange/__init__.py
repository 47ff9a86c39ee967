"""Requests and answers as files of other tools: spreadsheets, Label Studio, CVAT."""

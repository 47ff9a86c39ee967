"""Kedro's pipelines. Their nodes only translate between the catalog's tables and the packages below."""

"""Imported last by the process that others are forked off: it keeps what has been imported out of garbage collection.

A collection in a forked process would write into the pages that all of them share, and the end of the process would
look through all modules once more: two thirds of a second for PyTorch's.
"""

import gc

gc.freeze()

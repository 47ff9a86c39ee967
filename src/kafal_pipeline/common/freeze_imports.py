"""Keeps imported modules out of garbage collection; imported last by the process from which others are forked.

A collection in a forked process would write into the pages that all of them share, and the end of the process would
look through all modules once more: two thirds of a second for PyTorch's.
"""

import gc

gc.freeze()

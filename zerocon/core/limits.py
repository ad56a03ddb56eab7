"""Limits shared by settings and the code that they bound."""

GIB = 2**30
DEFAULT = 10.0  # largest cache, GiB
AUTO = 32  # cases per chunk if the batch size is determined automatically

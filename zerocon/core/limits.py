"""Sizes that settings and what they bound have in common."""

GIB = 2**30
DEFAULT = 10.0  # GiB that the cache may take
AUTO = 32  # cases in a chunk when the batch size is found automatically

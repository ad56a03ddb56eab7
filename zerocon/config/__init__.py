"""Turn `conf/` and overrides into checked plain objects."""

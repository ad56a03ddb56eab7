"""From `conf/` and overrides to checked plain objects."""

"""Run cases and store their results."""

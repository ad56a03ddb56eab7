"""Mirrors of a run outside of its directory."""

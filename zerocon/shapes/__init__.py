"""The shapes world: drawn scenes, their grammar, benchmark, and models."""

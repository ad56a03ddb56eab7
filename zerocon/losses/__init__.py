"""Losses between an edit's activations and its source's, one term a file."""

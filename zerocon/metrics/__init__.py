"""Metrics: pictures and their cases in, one number a case and column out."""

"""The recipe that made the packaged models: one file per stage, one loop for all."""

"""Numbers, tables and pictures from runs' records. Nothing here needs torch."""

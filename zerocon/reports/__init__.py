"""What a run says: numbers, tables and pictures from its records. Nothing here needs torch."""

"""What methods are made of. Imports nothing else of the package."""

"""The building blocks of methods. Imports nothing else of the package."""

"""The documentation as a site: what mkdocs.yml's hook adds to the pages of docs/."""

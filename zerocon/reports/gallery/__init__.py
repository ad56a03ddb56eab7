"""A run's pictures: a page that sorts and filters, and a contact sheet."""

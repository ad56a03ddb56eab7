"""A run to look at: a page that sorts and filters, and a contact sheet."""

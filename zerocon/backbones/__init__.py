"""Frozen text-to-image models behind one small interface (`base.Backbone`)."""

"""Trade-off curves of methods over a strength setting: computed, printed and drawn."""

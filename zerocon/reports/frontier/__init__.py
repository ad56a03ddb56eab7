"""Methods as curves over their strength: computed, printed and drawn."""

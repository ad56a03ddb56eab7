"""How the target condition is made from the source caption and the target prompt."""

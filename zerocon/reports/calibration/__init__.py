"""How well metrics predict the truth, where the truth is known: `zerocon calibrate`."""

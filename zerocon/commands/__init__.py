"""The subcommands of `zerocon`, one file each with an `add(commands)`, and shared options."""

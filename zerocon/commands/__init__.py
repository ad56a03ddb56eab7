"""The `zerocon` command's subcommands: one file each, with an `add(commands)`."""

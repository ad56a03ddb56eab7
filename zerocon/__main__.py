"""`python -m zerocon`."""

from zerocon.cli import main

main()

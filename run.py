"""One run, or a sweep: `python run.py method=sdedit`, `python run.py -m method.steps=10,50`."""

import sys

from zerocon.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]], program="run.py")

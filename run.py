"""One run, or a sweep: `python run.py method=sdedit`, `python run.py -m method.steps=10,50`."""

import sys

from zerocon.core.interrupt import end_at_once

if __name__ == "__main__":
    end_at_once()  # before the slow imports
    from zerocon.cli import main

    main(["run", *sys.argv[1:]], program="run.py")

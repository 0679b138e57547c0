"""A worker: draws the pictures named on standard input into the folder given, printing a line for each.

The line is empty, or the number of an error of the system (a full disk), with which the worker ends.
"""

import json
import sys
from pathlib import Path

from .write import load_plan, write_pair

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    plan = load_plan(folder)
    for split, index in json.load(sys.stdin):
        try:
            write_pair(folder, plan, split, index)
        except OSError as error:
            if error.errno is None:  # not the system's
                raise
            print(error.errno, flush=True)
            sys.exit(1)
        print(flush=True)

"""A worker: draws the pictures named on standard input into the folder given, printing a line for each."""

import json
import sys
from pathlib import Path

from .write import load_plan, write_pair

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    plan = load_plan(folder)
    for split, index in json.load(sys.stdin):
        write_pair(folder, plan, split, index)
        print(flush=True)

"""Makes faults happen to training at random moments, and shows that no run was harmed.

    python tests/faults/long.py --seed=0 --kills=30

Each run is finished and compared, to the bit, with one that nothing disturbed. Prints every fault, and a table at the
end. An AssertionError says what differed.

Cost: about 25 minutes on two busy CPU cores.
"""

import argparse
import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import harness


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places of the faults")
    parser.add_argument("--kills", type=int, default=30, help="how often SIGKILL is sent, and SIGTERM")
    parser.add_argument("--others", type=int, default=10, help="how often each other fault is made")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sean_jax_faults_") as name:
        folder = pathlib.Path(name)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")
        campaign = harness.Campaign(folder, args.seed, optimized=True)
        faults = {
            "SIGKILL": (lambda: campaign.kills("SIGKILL"), args.kills),
            "SIGTERM": (lambda: campaign.kills("SIGTERM"), args.kills),
            "a damaged checkpoint": (campaign.damaged_checkpoint, args.others),
            "records that rot": (campaign.rotten_records, args.others),
            "a full disk": (campaign.full_disk, args.others),
            "a clock that jumps": (campaign.jumping_clock, args.others),
        }
        table = ["", "| fault | times |", "| --- | --- |"]
        for fault, (happen, count) in faults.items():
            for number, line in enumerate(harness.repeated(happen, count), 1):
                print(f"{fault} {number}: {line}", flush=True)
                times = number
            table.append(f"| {fault} | {times} |")
        print("\n".join(table))
        print("every run ended as the undisturbed one")


if __name__ == "__main__":
    main()

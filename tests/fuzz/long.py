"""Reads damaged and crafted files of every kind and counts what became of them.

    python tests/fuzz/long.py --seed=0 --inputs=10000
    python tests/fuzz/long.py --seed=0 --kind=image --only=1234    # one input again; it stays in the folder --keep

Exits with code 1 if an input did what no input may do (see ``guard.py``). Such inputs are kept in --keep.
"""

import argparse
import collections
import contextlib
import gc
import io
import multiprocessing
import os
import pathlib
import random
import sys
import tempfile
import time
from multiprocessing.connection import Connection

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import guard
from kinds import KINDS

from sean_jax.errors import UserError

WALL_SECONDS = 60.0  # without an answer, a reader hangs
# Readers that draw charts or trace networks take longer; fewer inputs do.
SHARES = {"metadata": 0.3, "metrics.jsonl": 0.1, "evaluation.json": 0.1, "config.json": 0.3}


def one(kind: str, seed: int, number: int, folder: pathlib.Path) -> tuple[pathlib.Path, guard.Outcome]:
    """Makes input ``number`` of a kind and reads it; the same arguments make the same file."""
    content, suffix = KINDS[kind].make(random.Random(f"{seed}/{kind}/{number}"))
    file, output = folder / f"input{suffix}", folder / "output"
    file.write_bytes(content)
    output.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        outcome = guard.attempt(KINDS[kind].read, file, output, KINDS[kind].bound)
    return file, outcome


def _work(kind: str, seed: int, numbers: range, folder: pathlib.Path, answers: Connection) -> None:
    guard.install()
    (folder / "output").mkdir()
    for content in KINDS[kind].seeds():  # imports and starts what is imported and started once
        sound = folder / f"sound{KINDS[kind].suffixes[0]}"
        sound.write_bytes(content)
        with contextlib.suppress(UserError):
            KINDS[kind].read(sound, folder / "output")
    gc.collect()
    gc.freeze()  # what is there by now need not be looked through again
    answers.send(None)
    for number in numbers:
        answers.send(one(kind, seed, number, folder)[1])


def run(kind: str, seed: int, count: int, keep: pathlib.Path) -> list[guard.Outcome]:
    """Reads ``count`` inputs of a kind in processes of their own; one that ends or hangs costs its input alone."""
    outcomes: list[guard.Outcome] = []
    context = multiprocessing.get_context("fork")
    while len(outcomes) < count:
        with tempfile.TemporaryDirectory(prefix="sean_jax_fuzz_") as name:
            folder = pathlib.Path(name)
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(kind, seed, range(len(outcomes), count), folder, send))
            process.start()
            send.close()
            ready = False
            with contextlib.suppress(EOFError):
                while len(outcomes) < count:
                    if not receive.poll(WALL_SECONDS):
                        process.kill()
                        process.join()
                        outcomes.append(guard.Outcome("hang", f"no answer in {WALL_SECONDS:.0f} s", WALL_SECONDS, 0))
                        break
                    answer = receive.recv()
                    if answer is None:
                        ready = True
                        continue
                    outcomes.append(answer)
                    if answer.is_fault:
                        _save(kind, seed, len(outcomes) - 1, keep)
            process.join()
            if not ready:
                raise RuntimeError(f"{kind}: sound files are not read")
            if process.exitcode and outcomes and outcomes[-1].verdict != "hang":
                outcomes.append(guard.Outcome("crash", f"the process ended with {process.exitcode}", 0, 0))
            if outcomes and outcomes[-1].is_fault:
                _save(kind, seed, len(outcomes) - 1, keep)
    return outcomes


def _save(kind: str, seed: int, number: int, keep: pathlib.Path) -> None:
    content, suffix = KINDS[kind].make(random.Random(f"{seed}/{kind}/{number}"))
    keep.mkdir(parents=True, exist_ok=True)
    (keep / f"{kind.replace(' ', '_')}_{seed}_{number}{suffix}").write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=10_000, help="over all kinds")
    parser.add_argument("--kind", choices=list(KINDS), help="one kind alone")
    parser.add_argument("--only", type=int, help="the number of one input of --kind")
    parser.add_argument("--keep", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir(), "sean_jax_faults"))
    arguments = parser.parse_args()
    if arguments.only is not None:
        guard.install()
        arguments.keep.mkdir(parents=True, exist_ok=True)
        print(*one(arguments.kind, arguments.seed, arguments.only, arguments.keep), sep="\n")
        return
    kinds = [arguments.kind] if arguments.kind else list(KINDS)
    total, faults = sum(SHARES.get(kind, 1.0) for kind in kinds), 0
    print(f"{'kind':<16}{'inputs':>8}{'read':>8}{'refused':>9}{'faults':>8}{'slowest':>10}{'most memory':>13}")
    for kind in kinds:
        count = round(arguments.inputs * SHARES.get(kind, 1.0) / total)
        begun = time.monotonic()
        outcomes = run(kind, arguments.seed, count, arguments.keep)
        verdicts = collections.Counter(outcome.verdict for outcome in outcomes)
        wrong = [(number, outcome) for number, outcome in enumerate(outcomes) if outcome.is_fault]
        slowest, most = max(o.seconds for o in outcomes), max(o.memory for o in outcomes)
        print(
            f"{kind:<16}{count:>8}{verdicts['read']:>8}{verdicts['refused']:>9}{len(wrong):>8}{slowest:>8.1f} s"
            f"{most / 2**20:>9.0f} MiB   {time.monotonic() - begun:.0f} s",
            flush=True,
        )
        groups: dict[str, list[int]] = {}
        for number, outcome in wrong:
            groups.setdefault(f"{outcome.verdict}: {outcome.detail[-160:]}", []).append(number)
        for what, numbers in sorted(groups.items(), key=lambda item: -len(item[1])):
            print(f"    {len(numbers)} x {what}  [{', '.join(map(str, numbers[:4]))}]", flush=True)
        faults += len(wrong)
    if faults:
        sys.exit(f"{faults} inputs did what they must not; they are in {arguments.keep}")


if __name__ == "__main__":
    main()

"""The command line of the coherence checker.

Exits with 0 if nothing is wrong, 1 if there were violations, 2 if the run is void, 3 if it could not be done.
"""

from __future__ import annotations

import argparse
import sys

from tests.coherence import plain
from tests.coherence.faults import FAULTS
from tests.coherence.runner import Options, main
from tests.coherence.systems import SYSTEMS
from tests.coherence.workload import STEPS


def options_of(arguments: list[str]) -> Options:
    """Return what a command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.coherence", description=__doc__)
    default = Options()
    parser.add_argument("--seconds", type=float, default=default.seconds)
    parser.add_argument("--workers", type=int, default=default.workers)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default=default.database)
    names = ", ".join(name.replace(",", "").replace(" ", "-") for name in FAULTS)
    parser.add_argument("--faults", default=default.faults, help=f"all, none, or some of: {names}")
    parser.add_argument("--rate", type=float, default=default.rate, help="how many times as many faults")
    parser.add_argument(
        "--steps",
        default=default.steps,
        help=f"all, those of the unit of work (flushed), or some, as often as they are named, of: {', '.join(STEPS)}",
    )
    parser.add_argument("--rows", type=int, default=default.rows, help="how many accounts there are to meet at")
    parser.add_argument("--hesitate", type=float, default=default.hesitate, help="how often a worker does, at a point")
    parser.add_argument("--pause", type=float, default=default.pause, help="and for how many seconds at most")
    parser.add_argument(
        "--at",
        default=default.at,
        help="all, or at which points of their paths workers hesitate: some at a,b, others at c for a,b/c",
    )
    parser.add_argument("--system", choices=sorted({*SYSTEMS, *plain.SYSTEMS}), default=default.system)
    parser.add_argument("--mutant", default=None, help="a wrong system that the checker has to find")
    parser.add_argument("--unreachable", choices=["mixed", "refuse", "proceed"], default=default.unreachable)
    parser.add_argument("--lock-seconds", type=float, default=default.lock_seconds)
    parser.add_argument("--lifetime", type=float, default=default.lifetime, help="seconds that a record may live")
    parser.add_argument("--until-found", action="store_true", help="end when something wrong has happened")
    parser.add_argument("--keep", action="store_true", help="keep the histories, and the log of the database")
    return Options(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    options = options_of(sys.argv[1:])
    sys.exit(plain.main(options) if options.system in plain.SYSTEMS else main(options))

"""A process that works on schemas, each in a child of its own that can be stopped at any time.

It reads one line for each order and writes one. Schemas come from anywhere: one may take for ever,
or all memory, or bring down what compiles it. A child has all that is loaded the moment it is
forked, so it costs milliseconds, and the system stops it by its own clocks.
"""

import gc
import os
import resource
import signal
import sys
import traceback
from contextlib import suppress

from calltune.serving.grammar_jobs import STOPPED, answer, load

PROCESSOR_SECONDS = 1.0
"""An order takes milliseconds of them."""
SECONDS = 2.0
"""The same by the clock on the wall, for processors are busy with answers."""
MAX_BYTES = 4 << 30
"""Of memory that a child may take."""
NICENESS = 5
"""Answers on their way come first."""


def main() -> None:
    """Answer lines until there are none; an empty one when all is loaded."""
    # The server finishes what it has begun when it is told to end, and ends this process then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    load()
    os.nice(NICENESS)
    # What is loaded stays shared with the children.
    gc.freeze()
    for line in sys.stdin:
        if not line.strip() or not _in_child(line):
            _say(STOPPED)


def _in_child(line: str) -> bool:
    """Whether a child has answered."""
    child = os.fork()
    if child == 0:
        try:
            _work(line)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    return status == 0


def _work(line: str) -> None:
    # macOS knows no such limit.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    _stop_after(PROCESSOR_SECONDS, SECONDS)
    answered = answer(line)
    # Half an answer would be worse than none.
    _stop_after(0, 0)
    _say(answered)
    os._exit(0)


def _stop_after(processor_seconds: float, seconds: float) -> None:
    """Have the system end this process then; 0 is never."""
    signal.setitimer(signal.ITIMER_PROF, processor_seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""The grammar worker process: runs each job in a forked child with limits on time and memory.

It reads one line per job from standard input and writes one to standard output. Schemas are
untrusted: one may take forever, or all memory, or crash the compiler. A forked child has
everything imported already, so it costs milliseconds, and the system stops it by its own timers.
"""

import gc
import os
import resource
import signal
import sys
import traceback
from contextlib import suppress

from calltune.serving.grammar_jobs import STOPPED_LINE, run_job, warm_up

PROCESSOR_SECONDS = 1.0
"""Limit of processor time for a job; it usually takes milliseconds."""
SECONDS = 2.0
"""Limit of wall-clock time, which is longer since processors are busy with answers."""
MAX_BYTES = 4 << 30
"""Limit of a child's address space."""
NICENESS = 5
"""Running answers come first."""


def main() -> None:
    """Run jobs until standard input ends; an empty line is answered once all is imported."""
    # When the server is told to stop it completes its answers first, and then ends this process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    warm_up()
    os.nice(NICENESS)
    # Keeps the memory pages of all objects so far shared with the children.
    gc.freeze()
    for line in sys.stdin:
        if not line.strip() or not _run_in_child(line):
            _write(STOPPED_LINE)


def _run_in_child(line: str) -> bool:
    """Run a job in a child process; whether the child wrote a result."""
    child = os.fork()
    if child == 0:
        try:
            _run(line)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    return status == 0


def _run(line: str) -> None:
    # macOS has no such limit.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    _stop_after(PROCESSOR_SECONDS, SECONDS)
    result = run_job(line)
    # Half a line would be worse than none.
    _stop_after(0, 0)
    _write(result)
    os._exit(0)


def _stop_after(processor_seconds: float, seconds: float) -> None:
    """Let the system end this process after these times; 0 is never."""
    signal.setitimer(signal.ITIMER_PROF, processor_seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

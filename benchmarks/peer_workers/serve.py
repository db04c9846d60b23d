"""Loop of a worker: for each N read from stdin, it times N steps."""

import json
import resource
import sys
import time
from collections.abc import Callable


def serve(
    step: Callable[[], object], wait: Callable[[object], object], updates: int = 1, **about: object
) -> None:
    """Warm up, then time steps on request until stdin closes.

    Args:
        step: Function that makes `updates` training steps.
        wait: Function that waits for the result of `step`.
        updates: Number of training steps in a call of `step`.
        about: Description that is sent once when the worker is ready.
    """
    for _ in range(2):
        wait(step())
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        wait(step())  # Warm-up after the other workers.
        start = time.perf_counter()
        for _ in range(int(line)):
            result = step()
        wait(result)
        seconds = (time.perf_counter() - start) / int(line) / updates
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({'seconds': seconds, 'peak_bytes': peak}), flush=True)

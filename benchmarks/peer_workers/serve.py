"""Main loop of a benchmark worker, which times N training steps for each N read from stdin."""

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
        step: Function that runs `updates` training steps.
        wait: Function that blocks until the result of `step` is computed.
        updates: Number of training steps in a call of `step`.
        about: Fields of a JSON line that is printed when the worker is ready.
    """
    for _ in range(2):
        wait(step())
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        wait(step())  # Warm up again, because the other workers ran in the meantime.
        start = time.perf_counter()
        for _ in range(int(line)):
            result = step()
        wait(result)
        seconds = (time.perf_counter() - start) / int(line) / updates
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({'seconds': seconds, 'peak_bytes': peak}), flush=True)

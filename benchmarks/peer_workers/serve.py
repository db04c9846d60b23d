"""A worker's loop: for each N on stdin it makes a step and tells how long N more took."""

import json
import resource
import sys
import time
from collections.abc import Callable


def serve(
    step: Callable[[], object], wait: Callable[[object], object], updates: int = 1, **about: object
) -> None:
    """Warms `step` up, then answers until stdin closes.

    Args:
        step: makes `updates` updates.
        wait: waits for what `step` returned.
        updates: how many a step makes.
        about: told once, before the first answer.
    """
    for _ in range(2):
        wait(step())
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        wait(step())  # the first after others had the machine
        start = time.perf_counter()
        for _ in range(int(line)):
            result = step()
        wait(result)
        seconds = (time.perf_counter() - start) / int(line) / updates
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({'seconds': seconds, 'peak_bytes': peak}), flush=True)

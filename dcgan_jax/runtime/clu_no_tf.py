"""Import of CLU without TensorFlow.

`clu.metric_writers` (0.0.12) imports TensorFlow for a writer that this package does not use. A
placeholder for that writer's module in `sys.modules` avoids the import.
"""

import sys
import types

_UNUSED_WRITER = 'clu.metric_writers.tf.summary_writer'
if _UNUSED_WRITER not in sys.modules:
    sys.modules[_UNUSED_WRITER] = types.ModuleType(_UNUSED_WRITER, 'Placeholder.')
    sys.modules[_UNUSED_WRITER].SummaryWriter = None

from clu import metric_writers, parameter_overview, periodic_actions  # noqa: E402

__all__ = ['metric_writers', 'parameter_overview', 'periodic_actions']

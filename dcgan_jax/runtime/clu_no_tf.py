"""CLU without TensorFlow: import its modules from here.

`clu.metric_writers` (0.0.12) imports TensorFlow at once, for a writer that this project doesn't
use. A module that is there already under that writer's name is taken instead.
"""

import sys
import types

_UNUSED_WRITER = 'clu.metric_writers.tf.summary_writer'
if _UNUSED_WRITER not in sys.modules:
    sys.modules[_UNUSED_WRITER] = types.ModuleType(
        _UNUSED_WRITER, 'Stands for a writer unused here.'
    )
    sys.modules[_UNUSED_WRITER].SummaryWriter = None

from clu import metric_writers, parameter_overview, periodic_actions  # noqa: E402

__all__ = ['metric_writers', 'parameter_overview', 'periodic_actions']

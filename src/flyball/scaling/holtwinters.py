"""The heavier model of forecasts: Holt-Winters' triple exponential smoothing of the day, from statsmodels.

Fitted to logarithms of ten minutes each it takes about 30 ms; on finer or longer series seconds to minutes. Its
statsmodels is the extra ``forecast``, loaded with the first fit.
"""

import numpy as np
from numpy.typing import NDArray

from flyball.errors import ConfigError
from flyball.scaling.forecast import Curve, Task
from flyball.scaling.governor import MISSING


def fit(task: Task) -> Curve:
    """What the levels of a task lead to.

    Raises:
        ConfigError: statsmodels is not installed, or finds nothing.
    """
    try:
        from statsmodels.tools.sm_exceptions import ConvergenceWarning
        from statsmodels.tsa.holtwinters import ExponentialSmoothing
    except ImportError:
        raise ConfigError(MISSING) from None
    import warnings

    # what did not converge is judged by its errors like all others
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    levels: NDArray[np.float64] = np.array(task.levels)
    try:
        model = ExponentialSmoothing(
            levels, seasonal="add", seasonal_periods=task.day, initialization_method="heuristic"
        )
        expected = np.asarray(model.fit().forecast(task.ahead), np.float64)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise ConfigError(f"its fit failed: {error}") from error
    if not np.isfinite(expected).all():
        raise ConfigError("its fit failed: it expects what is no number")
    return task.curve(expected)

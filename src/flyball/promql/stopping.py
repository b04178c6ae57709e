"""How whoever waits for an evaluation asks it to end."""

import numpy as np

from flyball.errors import QueryLimitError
from flyball.model.frames import Mask


class Stop:
    """A flag that is looked at between nodes and within long loops; kernels see it as an array ``flag`` [1]."""

    __slots__ = ("flag",)

    def __init__(self) -> None:
        self.flag: Mask = np.zeros(1, bool)

    def set(self) -> None:
        self.flag[0] = True

    def is_set(self) -> bool:
        return bool(self.flag[0])

    def check(self) -> None:
        """
        Raises:
            QueryLimitError: it is set.
        """
        if self.flag[0]:
            raise QueryLimitError("query timed out in expression evaluation; select less or allow more time")

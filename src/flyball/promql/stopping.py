"""How whoever waits for an evaluation asks it to end."""

from collections.abc import Callable

import numpy as np

from flyball.errors import QueryLimitError
from flyball.model.frames import Mask


class Stop:
    """A flag that is looked at between nodes and within long loops; kernels see it as an array ``flag`` [1].

    Args:
        give_way: called where the flag is looked at: whoever has precedence may be waited for here.
    """

    __slots__ = ("_give_way", "flag")

    def __init__(self, give_way: Callable[[], None] | None = None) -> None:
        self.flag: Mask = np.zeros(1, bool)
        self._give_way = give_way

    def set(self) -> None:
        self.flag[0] = True

    def is_set(self) -> bool:
        return bool(self.flag[0])

    def check(self) -> None:
        """
        Raises:
            QueryLimitError: it is set.
        """
        if self._give_way is not None:
            self._give_way()
        if self.flag[0]:
            raise QueryLimitError("query timed out in expression evaluation; select less or allow more time")

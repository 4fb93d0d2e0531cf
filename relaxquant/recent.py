"""Results kept for the life of the process, as many as a limit allows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Recent:
    """Results by key; beyond `limit` the least recently used one goes.

    `functools.lru_cache` keeps all arguments alive; here what makes a result may hold more than the
    key, such as a network's weights, and is let go.

    Parameters
    ----------
    limit : int
        Results to keep.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._results: OrderedDict = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._results)

    def get(self, key: Hashable, make: Callable[[], object]):
        """The result for `key`, which is ``make()`` if there is none yet.

        Threads that ask for one key at once may each make it; one of the results is kept.
        """
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        result = make()
        with self._lock:
            result = self._results.setdefault(key, result)
            while len(self._results) > self.limit:
                self._results.popitem(last=False)
        return result

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._results.clear()

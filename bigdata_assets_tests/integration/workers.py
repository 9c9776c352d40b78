"""What Spark's Python workers take while something runs."""

import threading
from collections import Counter

import psutil

from bigdata_assets_tests.conftest import Engines


class Workers:
    """Watches them for the largest resident set, and how much they read in all."""

    def __init__(self, engines: Engines) -> None:
        self.peak_bytes, self._read, self._ended = 0, Counter[int](), threading.Event()
        self._server = psutil.Process(engines.pid("spark-connect"))
        self._before, self.peak_bytes = self._each(), 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Workers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def read_bytes(self) -> int:
        return self._read.total() - sum(read for pid, read in self._before.items() if pid in self._read)

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self._read |= self._each()  # the larger count of each, which is the newer one

    def _each(self) -> Counter[int]:
        found = Counter[int]()
        for process in self._server.children(recursive=True):
            try:
                self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)
                found[process.pid] = process.io_counters().read_chars
            except psutil.NoSuchProcess:
                continue
        return found

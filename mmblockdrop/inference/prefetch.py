"""Decode ahead in a thread, and show how far a video is."""
import queue
import threading
import time
from typing import Any, Iterable, Iterator, Optional, Sequence

from mmengine.logging import print_log
from mmengine.utils import ProgressBar

#: A bar is shown if the rest takes longer than this many seconds.
PATIENCE = 5.
_END = object()


def ahead(items: Iterable[Any], depth: int = 2) -> Iterator[Any]:
    """Produce items in a thread while earlier ones are used.

    Args:
        items: What is produced, such as decoded windows.
        depth: How many may wait; 0 works without thread.

    Yields:
        The items in order. An exception of ``items`` is raised where its item
        would come.
    """
    if depth < 1:
        yield from items
        return
    ready: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(value: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put(value, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:  # raised again by the reader
            put((_END, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


class WindowBar:
    """Progress bar over the windows of a long video.

    Args:
        wanted: Whether it may be shown at all.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.bar: Optional[ProgressBar] = None
        self.video: Any = None

    def update(self, batch: Sequence[Any]) -> None:
        """Count windows that are done.

        Args:
            batch: Windows with ``video``, ``index`` and ``count``.
        """
        window = batch[-1]
        if window.video != self.video:
            self.close()
            self.video, self.began = window.video, time.perf_counter()
            self.first = window.index
            return
        if self.bar is not None:
            for _ in range(min(len(batch), window.index - self.first)):
                self.bar.update()
            return
        done = window.index - self.first
        spent = time.perf_counter() - self.began
        rest = window.count - 1 - window.index
        if self.wanted and done and spent / done * rest > PATIENCE:
            print_log(f'{window.video}: {window.count} windows',
                      logger='current')
            self.bar = ProgressBar(rest)

    def close(self) -> None:
        """End the line of the bar."""
        if self.bar is not None:
            self.bar.file.write('\n')
        self.bar = None

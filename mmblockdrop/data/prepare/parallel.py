"""Call a function for many files: in parallel, errors at the end."""
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Dict, List, Sequence, Tuple

from mmengine.utils import ProgressBar


def for_each(function: Callable[[Any], Any],
             items: Sequence[Any],
             workers: int = 1) -> Tuple[Dict[Any, Any], Dict[Any, str]]:
    """Call a function for every item; no failure stops the others.

    A decoder that crashes takes its process with it. The items that were
    under way are then tried again one at a time, and only the one at fault
    fails.

    Args:
        function: Of one item; can be pickled if there are several workers.
        items: Hashable, each once.
        workers: Processes; 0 or 1 works in this one, without shelter from
            crashes. Defaults to 1.

    Returns:
        Item to result, and item to what went wrong; both in the order of the
        items.
    """
    done: Dict[Any, Any] = {}
    failed: Dict[Any, str] = {}
    bar = ProgressBar(len(items), file=sys.stderr) if items else None

    def finish(item: Any, call: Callable[[], Any]) -> None:
        try:
            done[item] = call()
        except BrokenProcessPool:
            raise
        except Exception as error:  # any: it belongs to this item alone
            failed[item] = f'{error}' or type(error).__name__
        if bar is not None:
            bar.update()

    if workers <= 1:
        for item in items:
            finish(item, lambda: function(item))
    else:
        left = list(items)
        while left:
            left = _in_pool(function, left, workers, finish)
            # Work is done in order: the one that crashed is among the first.
            for item in left[:2 * workers + 2]:
                if _in_pool(function, [item], 1, finish):
                    finish(item, _crash)
            left = left[2 * workers + 2:]
    if bar is not None:
        bar.file.write('\n')
    return ({i: done[i] for i in items if i in done},
            {i: failed[i] for i in items if i in failed})


def _in_pool(function: Callable, items: Sequence[Any], workers: int,
             finish: Callable) -> List[Any]:
    """Run in processes; return what a crash left undone."""
    method = 'fork' if sys.platform.startswith('linux') else None
    left = dict.fromkeys(items)
    with ProcessPoolExecutor(
            workers, multiprocessing.get_context(method)) as pool:
        futures = {}
        try:
            for item in items:
                futures[pool.submit(function, item)] = item
            for future in as_completed(futures):
                finish(futures[future], future.result)
                left.pop(futures[future])
        except BrokenProcessPool:
            pass
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return list(left)


def _crash() -> None:
    raise RuntimeError('the decoder crashed on this file')

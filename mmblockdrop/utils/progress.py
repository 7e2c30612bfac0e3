"""Show how far a pass over the data is."""
from typing import Any, Iterator

from mmengine.dist import is_main_process
from mmengine.utils import ProgressBar


def with_progress(batches: Any) -> Iterator[Any]:
    """Walk through batches with a bar and the time left.

    Args:
        batches: Batches; anything with a length.

    Yields:
        The batches. Only the main process draws the bar.
    """
    if not is_main_process() or not len(batches):
        yield from batches
        return
    bar = ProgressBar(len(batches))
    for batch in batches:
        yield batch
        bar.update()
    print(flush=True)

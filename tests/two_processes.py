"""Work that two processes of a gloo group do together."""
import json
import os
import traceback

from torch import distributed as dist


def in_two_processes(tmp_path, work):
    """What two forked processes of a group give.

    Args:
        work: Called with the rank; returns what JSON can hold.
    """
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                dist.init_process_group(
                    'gloo',
                    init_method=f'file://{tmp_path / "store"}',
                    rank=rank,
                    world_size=2)
                (tmp_path / f'{rank}.json').write_text(json.dumps(work(rank)))
                dist.barrier()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return [
        json.loads((tmp_path / f'{rank}.json').read_text())
        for rank in range(2)
    ]

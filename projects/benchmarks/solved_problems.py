"""What benchmark_scoring.py has found so far, in a file."""
import argparse
import json
from typing import Dict, List, Tuple

from mmblockdrop.utils.io import whole_file


class Solved:
    """Problems that were solved, in a file.

    Args:
        args: Of the benchmark.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.settings = [args.steps, args.batches, args.batch_size,
                         args.timed, *args.criteria]
        self.found: Dict[str, dict] = {}
        if args.results.is_file():
            content = json.loads(args.results.read_text())
            if content['settings'] == self.settings:
                self.found = content['found']

    def __contains__(self, task: Tuple[int, int]) -> bool:
        return '{}/{}'.format(*task) in self.found

    def add(self, task: Tuple[int, int], result: dict) -> None:
        """Keep a problem."""
        self.found['{}/{}'.format(*task)] = json.loads(json.dumps(result))
        path = self.args.results
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(
                json.dumps(dict(settings=self.settings, found=self.found)))

    def of(self, depth: int) -> List[dict]:
        """Problems of a depth, in order of their seeds."""
        return [
            self.found[f'{depth}/{seed}'] for seed in range(self.args.problems)
            if (depth, seed) in self
        ]

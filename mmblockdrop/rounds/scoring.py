"""Score the candidates of a round, also in several goes."""
import difflib
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from mmblockdrop.registry import SCORERS
from mmblockdrop.scorers.partial_scores import FOLDER, Journal, clear, digest

from mmengine.runner import Runner

from .evaluator import Gauge
from .hook import BlockDropHook, history
from .options import check_arguments
from .rebuild import plain_model

#: Settings of a loader that change nothing of what is read.
WITHOUT_EFFECT = ('num_workers', 'persistent_workers', 'pin_memory',
                  'prefetch_factor')


class Scoring:
    """Runs the scorer and keeps what an interrupted scoring had found.

    Args:
        runner: The runner.
        hook: Its record.
        gauge: Gives batches and evaluators.
        scorer: Config of the rule.
        keep_every: Seconds after which what was found is written.
    """

    def __init__(self, runner: Runner, hook: BlockDropHook, gauge: Gauge,
                 scorer: dict, keep_every: float) -> None:
        self.runner, self.hook, self.gauge = runner, hook, gauge
        self._check(scorer)
        self.scorer = SCORERS.build(dict(scorer, _scope_='mmblockdrop'))
        self.cfg = scorer
        self.keep_every = keep_every

    def __call__(self, protect: List[int]) -> Dict[str, Any]:
        """Score every block that is left and not protected.

        Args:
            protect: Original numbers of the protected blocks.

        Returns:
            Entry of the record, in the state 'scored'.
        """
        began = time.perf_counter()
        stack = self.hook.stack(self.runner)
        candidates = [i for i in stack.candidates() if i not in protect]
        scores = self._found(candidates) or self._score(stack, candidates)
        return dict(
            round=len(self.hook.rounds) + 1,
            state='scored',
            criterion=type(self.scorer).__name__,
            scored_by=self.rule(),
            higher_is_better=self.scorer.higher_is_better,
            scores={str(i): s for i, s in sorted(scores.items())},
            block_executions=self.scorer.executions,
            seconds=dict(score=time.perf_counter() - began),
            epochs={})

    @staticmethod
    def _check(scorer: dict) -> None:
        """Refuse an unknown rule, and arguments that it does not have."""
        name = scorer.get('type')
        if not isinstance(name, str):  # a class, or missing: mmengine says
            return
        kind = SCORERS.get(name)
        if kind is None:
            near = difflib.get_close_matches(
                name.split('.')[-1], SCORERS.module_dict, n=1, cutoff=0)[0]
            raise KeyError(
                f'train_cfg.scorer.type={name!r} is not registered; did you '
                f"mean 'mmblockdrop.{near}'? There are "
                f'{sorted(SCORERS.module_dict)}.')
        check_arguments(kind, scorer, 'train_cfg.scorer')

    def rule(self) -> str:
        """Short name of the rule and the data, equal for equal configs.

        Returns:
            The name.
        """
        data = self.gauge.score_dataloader
        if data is None:
            data = self.runner.cfg.get('val_dataloader')
        if isinstance(data, dict):
            data = {k: v for k, v in data.items() if k not in WITHOUT_EFFECT}
        return digest(
            [self.cfg, data, self.runner.cfg.get('val_evaluator')])

    def best(self, entry: Dict[str, Any], count: int) -> List[int]:
        """Choose the blocks to drop.

        Args:
            entry: Entry of the record with the scores.
            count: How many.

        Returns:
            Original numbers, the best first.
        """
        scores = {int(i): s for i, s in entry['scores'].items()}
        chosen = self.scorer.best(scores, count)
        level = scores[chosen[-1]]
        tied = [i for i, score in scores.items() if score == level]
        if set(tied) - set(chosen):
            self.runner.logger.warning(
                f'The scores cannot tell the blocks {tied} apart: each has '
                f'{level:.4g} on {len(self.gauge.score_batches.dataset)} '
                'samples, so the lowest number goes. Score on more of the '
                'training data (sample_ratio of train_cfg.score_dataloader) '
                'or by mmblockdrop.LossScorer.')
        return chosen

    def settled(self) -> None:
        """Forget single batches: the scores are in the record now."""
        clear(Path(self.runner.work_dir) / FOLDER)

    def _found(self, candidates: List[Any]) -> Optional[Dict[int, float]]:
        """Scores that an interrupted run had written, if they fit."""
        entry = self.hook.interrupted_round(
            type(self.scorer).__name__, self.rule())
        if entry is None or sorted(
                map(int, entry['scores'])) != sorted(candidates):
            return None
        self.runner.logger.info('Scores of the interrupted round reused')
        self.scorer.executions = entry.get('block_executions', 0)
        return {int(i): s for i, s in entry['scores'].items()}

    def _score(self, stack: Any, candidates: List[Any]) -> Dict[int, float]:
        batches = self.gauge.score_batches
        self.runner.logger.info(
            f'Scoring {len(candidates)} blocks by '
            f'{type(self.scorer).__name__} on {len(batches)} batches')
        key = [
            history(self.hook.record, len(self.hook.rounds)), candidates,
            self.rule(),
            list(getattr(batches, 'batch_sampler', None) or [])
        ]
        self.scorer.journal = Journal(
            Path(self.runner.work_dir) / FOLDER, key, self.keep_every)
        return self.scorer(
            plain_model(self.runner.model), stack, candidates, batches,
            self.gauge.new_evaluator)

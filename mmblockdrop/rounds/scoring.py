"""Score the candidates of a round, also in several goes."""
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from mmblockdrop.compression import Id, Structure
from mmblockdrop.compression.record import read_id
from mmblockdrop.registry import SCORERS
from mmblockdrop.scorers import ScoringContext
from mmblockdrop.scorers.partial_scores import (FOLDER, PartialScores, clear,
                                                digest)
from mmblockdrop.utils.messages import (check_arguments, did_you_mean, listed,
                                        require_finite)

from mmengine.runner import Runner

from .evaluator import ModelEvaluator
from .hook import BlockDropHook
from .rebuild import plain_model
from .resume import history, scored_round
from .run_file import WITHOUT_EFFECT


class Scoring:
    """Runs the scorer and keeps what an interrupted scoring had found.

    Args:
        runner: The runner.
        hook: Its record.
        evaluator: Gives batches and evaluators.
        scorer: Config of the rule.

    Raises:
        KeyError: There is no such rule; names the nearest.
        ValueError: The rule has no such argument; names the nearest.
    """

    def __init__(self, runner: Runner, hook: BlockDropHook,
                 evaluator: ModelEvaluator, scorer: dict) -> None:
        self.runner, self.hook, self.evaluator = runner, hook, evaluator
        self.cfg = {k: v for k, v in scorer.items() if k != 'cache_mb'}
        if 'cache_mb' in scorer:
            runner.logger.warning(
                'train_cfg.scorer.cache_mb was removed and has no effect: '
                'scores are the same without it.')
        self._check(self.cfg)
        self.scorer = SCORERS.build(dict(self.cfg, _scope_='mmblockdrop'))

    def __call__(self, protect: Sequence[Id], count: int) -> Dict[str, Any]:
        """Score what can be removed and is not protected.

        Args:
            protect: Ids of what is protected.
            count: How many candidates the round drops.

        Returns:
            Entry of the record, in the state 'scored'.
        """
        began = time.perf_counter()
        structure = self.hook.structure(self.runner)
        candidates = [i for i in structure.candidates() if i not in protect]
        scores = self._found(structure, candidates) or self._score(
            structure, candidates, count)
        return dict(
            round=len(self.hook.rounds) + 1,
            state='scored',
            criterion=type(self.scorer).__name__,
            scored_by=self.rule(),
            higher_is_better=self.scorer.higher_is_better,
            scores={str(i): scores[i]
                    for i in structure.ids if i in scores},
            scored_on=self.evaluator.scored_on(),
            block_executions=self.scorer.executions,
            seconds=dict(score=time.perf_counter() - began),
            epochs={},
            intervals={})

    @staticmethod
    def _check(scorer: dict) -> None:
        """Reject an unknown rule, and arguments that it does not have."""
        name = scorer.get('type')
        if name is None:  # mmengine says so
            return
        kind = SCORERS.get(name) if isinstance(name, str) else name
        if kind is None:
            names = [f'mmblockdrop.{n}' for n in sorted(SCORERS.module_dict)]
            raise KeyError(
                f'train_cfg.scorer.type={name!r}: expected one of '
                f'{listed(names)}{did_you_mean(name, names)}')
        check_arguments(kind, scorer, 'train_cfg.scorer')

    def rule(self) -> str:
        """Short name of the rule and the data, equal for equal configs.

        Returns:
            The name.
        """
        data = self.evaluator.score_dataloader
        if data is None:
            data = self.runner.cfg.get('val_dataloader')
        if isinstance(data, dict):
            data = {k: v for k, v in data.items() if k not in WITHOUT_EFFECT}
        return digest(
            [self.cfg, data, self.runner.cfg.get('val_evaluator')])

    def best(self, entry: Dict[str, Any], count: int) -> List[Id]:
        """Choose what to drop.

        Args:
            entry: Entry of the record with the scores.
            count: How many.

        Returns:
            Ids, the best first.
        """
        structure = self.hook.structure(self.runner)
        scores = _read_scores(entry, structure)
        chosen = self.scorer.best(scores, count)
        level = scores[chosen[-1]]
        tied = [i for i, score in scores.items() if score == level]
        if set(tied) - set(chosen):
            self.runner.logger.warning(
                f'The scores cannot tell the {structure.units} {tied} apart: '
                f'each has {level:.4g} on '
                f'{len(self.evaluator.score_batches.dataset)} samples, so the '
                'lowest number goes. Score on more of the training data '
                '(sample_ratio of train_cfg.score_dataloader) or by '
                'mmblockdrop.LossScorer.')
        return chosen

    def settled(self) -> None:
        """Forget single batches: the scores are in the record now."""
        clear(Path(self.runner.work_dir) / FOLDER)

    def _found(self, structure: Structure,
               candidates: List[Id]) -> Optional[Dict[Id, float]]:
        """Scores that an interrupted run had written, if they fit."""
        entry = scored_round(self.hook.interrupted, self.hook.record,
                             type(self.scorer).__name__, self.rule())
        if entry is None or set(entry['scores']) != {*map(str, candidates)}:
            return None
        self.runner.logger.info('Scores of the interrupted round reused')
        self.scorer.executions = entry.get('block_executions', 0)
        return _read_scores(entry, structure)

    def _score(self, structure: Structure, candidates: List[Id],
               count: int) -> Dict[Id, float]:
        """Run the scorer."""
        batches = self.evaluator.score_batches
        name = type(self.scorer).__name__
        self.runner.logger.info(
            f'Scoring {len(candidates)} {structure.units} by {name} on '
            f'{len(batches)} batches')
        key = [
            history(self.hook.record, len(self.hook.rounds)), candidates,
            self.rule(), count,
            list(getattr(batches, 'batch_sampler', None) or [])
        ]
        scores = self.scorer(
            ScoringContext(
                plain_model(self.runner.model), structure, candidates,
                batches, self.evaluator.new_evaluator, count,
                PartialScores(Path(self.runner.work_dir) / FOLDER, key)))
        return {
            i: require_finite(score, f'{structure.unit.capitalize()} {i} has '
                              f'the score of {name}')
            for i, score in scores.items()
        }


def _read_scores(entry: Dict[str, Any],
                 structure: Structure) -> Dict[Id, float]:
    """Scores of a round by id; JSON has text for keys."""
    return {
        read_id(i, structure.ids): require_finite(
            score, f'The record of the run has rounds.scores[{i!r}]')
        for i, score in entry['scores'].items()
    }

"""The rounds: score, drop, align, measure, merge, record."""
import copy
import math
import time
from typing import Any, Dict, Optional, Sequence, Union

import torch
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmblockdrop.blocks import check_lora, has_lora, merge_lora
from mmblockdrop.distill.wrapper import load_whole, read_localizer
from mmblockdrop.registry import LOOPS, SCORERS
from mmblockdrop.report import measure, round_table, write_report
from .epoch import seed_epoch
from .files import save_weights
from .hook import find_hook
from .rebuild import (Recipe, check_paths, evaluate, freeze_except,
                      localizer_of, plain_model)
from .select import pick

PUBLISHED_TRAINABLE = ('lora_', 'norm', 'patch_embed')


@LOOPS.register_module()
class DistillationLoop(EpochBasedTrainLoop):
    """Progressive block drop (arXiv 2503.16916, algorithm 1).

    A round scores every remaining block, drops the best candidate, builds
    optimizer, schedulers, EMA and the distributed wrapper anew, trains the
    student for ``epochs_per_round`` epochs against the teacher, takes the
    best evaluated epoch (epoch 0, the student as it was dropped, included),
    folds LoRA into the weights and writes
    ``round_<n>.pth`` and the record. ``param_scheduler`` describes one
    round: its epochs count from the start of the round.

    Args:
        runner (Runner): The runner.
        dataloader (dict | DataLoader): ``train_dataloader``.
        drops (int | str): Blocks to drop, or a share of the stack such as
            '25%'.
        epochs_per_round (int): Training epochs after each drop; 0 drops
            without training.
        drops_per_round (int): Blocks that go at once. Defaults to 1.
        scorer (dict): Rule that scores candidates.
        score_dataloader (dict, optional): What candidates are scored on, a
            part of the training data read as for testing. Defaults to
            ``val_dataloader``.
        metric (str): Key that chooses the best epoch and enters the record.
        higher_is_better (bool): Direction of ``metric``.
        lora (dict, optional): Arguments of ``add_lora`` for the blocks.
            None trains the weights themselves.
        frozen (Sequence[str], optional): Paths in the localizer that are
            frozen but for ``trainable``. Defaults to the module that holds
            the stack with LoRA, nothing without.
        trainable (Sequence[str]): Parts of the names of parameters inside
            ``frozen`` that are trained. Defaults to LoRA, norms and patch
            embedding.
        protect (Sequence[int]): Original numbers that are never dropped.
        dynamic_teacher (bool): From the second round on, learn from the
            result of the round before. Defaults to False, the uncompressed
            teacher.
        val_begin (int): First epoch of a round that is evaluated.
        val_interval (int): Epochs between evaluations.

    Raises:
        ValueError: More drops than blocks, unknown protected blocks, no
            ``BlockDropHook`` or no validation in the config.
    """

    def __init__(
            self,
            runner: Runner,
            dataloader: Any,
            drops: Union[int, str],
            epochs_per_round: int,
            drops_per_round: int = 1,
            scorer: dict = dict(type='mmblockdrop.MetricScorer'),
            score_dataloader: Optional[dict] = None,
            metric: str = 'tad/mAP',
            higher_is_better: bool = True,
            lora: Optional[dict] = None,
            frozen: Optional[Sequence[str]] = None,
            trainable: Sequence[str] = PUBLISHED_TRAINABLE,
            protect: Sequence[int] = (),
            dynamic_teacher: bool = False,
            val_begin: int = 1,
            val_interval: int = 1) -> None:
        if runner._val_loop is None:
            raise ValueError(
                'DistillationLoop chooses the best epoch of a round and needs '
                'val_dataloader, val_cfg and val_evaluator in the config.')
        self.hook = find_hook(runner)
        self.protect = list(protect)
        stack = self.hook.stack(runner)
        for index in self.protect:
            if index not in range(len(stack)):
                raise ValueError(
                    f'train_cfg.protect names block {index}; '
                    f'{stack.path!r} has blocks 0 to {len(stack) - 1}.')
        self.drops = _count_drops(drops, len(stack), len(self.protect))
        if drops_per_round < 1 or epochs_per_round < 0:
            raise ValueError(
                f'train_cfg.drops_per_round={drops_per_round} must be at '
                f'least 1 and epochs_per_round={epochs_per_round} at least 0.')
        self.drops_per_round = drops_per_round
        self.epochs_per_round = epochs_per_round
        self.n_rounds = math.ceil(self.drops / drops_per_round)
        super().__init__(
            runner,
            dataloader,
            max_epochs=self.n_rounds * epochs_per_round,
            val_begin=val_begin,
            val_interval=val_interval)
        self.scorer = SCORERS.build(dict(scorer, _scope_='mmblockdrop'))
        self.score_dataloader = score_dataloader
        self.metric, self.sign = metric, 1 if higher_is_better else -1
        self.lora = lora
        if lora is not None and not has_lora(self.localizer):
            for path in self.hook._paths():
                check_lora(self.localizer.get_submodule(path), **lora)
        if frozen is None:
            frozen = [] if lora is None else sorted(
                {p.split('.')[0] for p in self.hook._paths()})
        self.frozen, self.trainable = frozen, trainable
        check_paths(self.localizer, frozen, 'train_cfg.frozen')
        self.fixed = {
            name
            for name, parameter in self.localizer.named_parameters()
            if not parameter.requires_grad
        }
        self.dynamic_teacher = dynamic_teacher
        if dynamic_teacher and not hasattr(
                plain_model(runner.model), 'set_teacher'):
            raise ValueError(
                'train_cfg.dynamic_teacher needs model.type='
                "'mmblockdrop.TeacherStudentWrapper', found "
                f'{type(plain_model(runner.model)).__name__}.')
        self.recipe = Recipe(runner, epochs_per_round,
                             epochs_per_round * len(self.dataloader))

    @property
    def round(self) -> int:
        """int: Number of finished rounds."""
        return sum(r['state'] == 'aligned' for r in self.hook.rounds)

    @property
    def localizer(self) -> nn.Module:
        """nn.Module: The student."""
        return localizer_of(self.runner.model)

    def run(self) -> nn.Module:
        """Run the rounds that are left."""
        self.runner.call_hook('before_train')
        if self.hook.current is None and not self.hook.rounds:
            self.start()
        while self.round < self.n_rounds:
            if self.hook.current is None:
                self.choose_and_drop()
                self.prepare_alignment()
            self.align()
            self.finish_round()
        self.hook.record['finished'] = True
        self.hook.write(self.runner)
        self.runner.call_hook('after_train')
        return self.runner.model

    # ---------------------------------------------------- steps of a round
    def start(self) -> None:
        """Record the localizer as it comes in."""
        merge_lora(self.localizer)
        stack = self.hook.stack(self.runner)
        gone = set(range(len(stack))) - set(stack.left)
        for index in self.hook.start_dropped:
            if index not in gone:
                stack.drop(index)
        self.hook.record['start_dropped'] = [
            i for i in range(len(stack)) if i not in stack.left
        ]
        candidates = set(stack.left) - set(self.protect)
        if self.drops > min(len(candidates), len(stack.left) - 1):
            raise ValueError(
                f'train_cfg.drops means {self.drops} blocks, but the '
                f'checkpoint has lost {self.hook.record["start_dropped"]} '
                f'already and only {sorted(candidates)} may go; one block '
                'stays.')
        metrics = self.validate()
        for key, name in ((self.metric, 'metric'),
                          (getattr(self.scorer, 'metric', self.metric),
                           'scorer.metric')):
            pick(metrics, key, f'train_cfg.{name}')
        self.hook.record.update(
            metric=self.metric,
            baseline=dict(
                metric=pick(metrics, self.metric),
                metrics=metrics,
                blocks_left=stack.left,
                **self.cost()))
        self.hook.write(self.runner)
        self.runner.logger.info(
            f'Uncompressed: {self.metric} {metrics[self.metric]:.4f}, '
            f'{len(stack.left)} blocks')

    def choose_and_drop(self) -> None:
        """Score every candidate and drop the best."""
        began = time.perf_counter()
        stack = self.hook.stack(self.runner)
        scores = self.score()
        entry = dict(
            round=self.round + 1,
            state='scored',
            criterion=type(self.scorer).__name__,
            higher_is_better=self.scorer.higher_is_better,
            scores={str(i): s for i, s in sorted(scores.items())},
            block_executions=self.scorer.executions,
            seconds=dict(score=time.perf_counter() - began),
            epochs={})
        count = min(self.drops_per_round, self.drops - self.dropped)
        self.hook.rounds.append(entry)
        self.hook.write(self.runner)
        chosen = self.scorer.best(scores, count)
        self.hook.drop(self.runner, chosen)
        entry.update(
            state='dropped', dropped=chosen, blocks_left=stack.left)
        entry['metric_before'] = pick(self.validate(), self.metric)
        entry.update(self.cost())
        entry['epochs']['0'] = entry['metric_before']
        self.recipe.rebuild(self.runner, self.max_iters)
        save_weights(self.runner, self.best_name)
        self.hook.write(self.runner)
        self.runner.logger.info(
            f'Round {entry["round"]} of {self.n_rounds}: dropped block '
            f'{chosen}, left {stack.left}, {self.metric} '
            f'{entry["metric_before"]:.4f} before alignment')

    def score(self) -> Dict[int, float]:
        """Score the candidates, or take the scores an interrupted run left.

        Returns:
            Dict[int, float]: Original number to score.
        """
        stack = self.hook.stack(self.runner)
        candidates = [i for i in stack.left if i not in self.protect]
        found = self.hook.interrupted_scores(type(self.scorer).__name__)
        if sorted(found) == candidates:
            self.runner.logger.info('Scores of the interrupted round reused')
            return found
        self.runner.logger.info(
            f'Scoring {len(candidates)} blocks by '
            f'{type(self.scorer).__name__} on {len(self.score_batches)} '
            'batches')
        return self.scorer(
            plain_model(self.runner.model), stack, candidates,
            self.score_batches, self.new_evaluator)

    def prepare_alignment(self) -> None:
        """Fresh LoRA, what is trained, and all that holds parameters."""
        model = plain_model(self.runner.model)
        if self.dynamic_teacher and self.round > 0:
            model.set_teacher(self.path_of(self.round))
        seed_epoch(self.dataloader.dataset, self.runner.seed, self._epoch)
        self.hook.attach_lora(self.runner, self.lora)
        trained = freeze_except(self.localizer, self.frozen, self.trainable,
                                self.fixed)
        self.runner.logger.info(f'{trained} values are trained')
        self.recipe.rebuild(self.runner, self.max_iters)

    def align(self) -> None:
        """Train against the teacher; keep the best evaluated epoch."""
        entry = self.hook.current
        began = time.perf_counter()
        first = (entry['round'] - 1) * self.epochs_per_round
        last = first + self.epochs_per_round
        if self._epoch > first:
            self.judge_epoch(self._epoch - first)
        while self._epoch < last:
            seed_epoch(self.dataloader.dataset, self.runner.seed, self._epoch)
            self.run_epoch()
            self.judge_epoch(self._epoch - first)
        entry['seconds']['align'] = time.perf_counter() - began

    def judge_epoch(self, epoch: int) -> None:
        """Evaluate an epoch of the round and keep it if it is the best.

        Args:
            epoch (int): Number in the round, from one.
        """
        entry = self.hook.current
        due = epoch >= self.val_begin and epoch % self.val_interval == 0
        if str(epoch) in entry['epochs'] or not (
                due or epoch == self.epochs_per_round):
            return
        value = pick(self.runner.val_loop.run(), self.metric)
        best = max(self.sign * v for v in entry['epochs'].values())
        entry['epochs'][str(epoch)] = value
        if self.sign * value > best:
            save_weights(self.runner, self.best_name)
        self.hook.write(self.runner)

    def finish_round(self) -> None:
        """Go on with the best epoch: merge, measure, write, report."""
        entry = self.hook.current
        epochs = entry['epochs']
        best = max(epochs, key=lambda e: (self.sign * epochs[e], -int(e)))
        entry.update(best_epoch=int(best), metric_after=epochs[best])
        path = f'{self.runner.work_dir}/{self.best_name}'
        if best == '0':  # written before LoRA was attached
            merge_lora(self.localizer)
        load_whole(self.localizer, read_localizer(path)[0], path)
        merge_lora(self.localizer)
        self.hook.lora = None
        entry.update(state='aligned', **self.cost())
        entry['checkpoint'] = f'round_{entry["round"]}.pth'
        self.recipe.rebuild(self.runner, self.max_iters)
        save_weights(self.runner, entry['checkpoint'])
        self.hook.write(self.runner)
        self.report(entry)

    # ------------------------------------------------------------- helpers
    @property
    def dropped(self) -> int:
        """int: Blocks dropped by the rounds so far."""
        return sum(len(r.get('dropped', [])) for r in self.hook.rounds)

    @property
    def best_name(self) -> str:
        """str: File of the best epoch of the current round."""
        return f'round_{self.hook.current["round"]}_best.pth'

    def path_of(self, number: int) -> str:
        """Path of the result of a round.

        Args:
            number (int): Round, from one.

        Returns:
            str: Checkpoint.
        """
        return f'{self.runner.work_dir}/round_{number}.pth'

    @property
    def score_batches(self) -> Any:
        """DataLoader: What candidates are scored on."""
        if not hasattr(self, '_score_batches'):
            if self.score_dataloader is None:
                self._score_batches = self.runner.val_loop.dataloader
            else:
                self._score_batches = Runner.build_dataloader(
                    copy.deepcopy(self.score_dataloader),
                    seed=self.runner.seed)
            if not len(self._score_batches.dataset):
                raise ValueError('train_cfg.score_dataloader gives an empty '
                                 'dataset: nothing to score on.')
        return self._score_batches

    def new_evaluator(self) -> Evaluator:
        """Evaluator like that of validation, with nothing counted yet.

        Returns:
            Evaluator: The evaluator.
        """
        evaluator = copy.deepcopy(self.runner.val_loop.evaluator)
        for metric in evaluator.metrics:
            metric.results.clear()
        evaluator.dataset_meta = self.score_batches.dataset.metainfo
        return evaluator

    def validate(self) -> Dict[str, float]:
        """Metrics on the validation data as the model is now.

        Returns:
            Dict[str, float]: All metrics.
        """
        val_loop = self.runner.val_loop
        evaluator = copy.deepcopy(val_loop.evaluator)
        return evaluate(
            plain_model(self.runner.model), val_loop.dataloader, evaluator)

    def cost(self) -> Dict[str, float]:
        """Parameters, MACs and latency of one window of validation.

        Returns:
            Dict[str, float]: ``params``, ``macs``, ``latency_ms``.
        """
        if not hasattr(self, '_window'):
            batch = next(iter(self.runner.val_loop.dataloader))
            data = plain_model(self.runner.model).data_preprocessor(
                batch, False)
            self._window = (data['inputs'][:1], data['data_samples'][:1])
        self.localizer.eval()
        with torch.no_grad():
            return measure(self.localizer, *self._window)

    def report(self, entry: Dict[str, Any]) -> None:
        """Log the table and the curves.

        Args:
            entry (dict): The round that has just ended.
        """
        self.runner.logger.info('\n' + round_table(self.hook.record))
        keys = ('metric_before', 'metric_after', 'params', 'macs',
                'latency_ms')
        self.runner.visualizer.add_scalars(
            {f'blockdrop/{k}': entry[k]
             for k in keys if k in entry},
            step=entry['round'])
        if is_main_process():
            write_report(self.hook.record, self.runner.work_dir)


def _count_drops(drops: Union[int, str], depth: int, protected: int) -> int:
    """Blocks to drop out of a stack of ``depth``."""
    if isinstance(drops, str):
        try:
            count = round(float(drops.rstrip('%')) / 100 * depth)
        except ValueError:
            raise ValueError(f'train_cfg.drops={drops!r}: expected a number '
                             "of blocks or a share such as '25%'") from None
    else:
        count = drops
    most = depth - max(protected, 1)
    if not 1 <= count <= most:
        raise ValueError(
            f'train_cfg.drops={drops!r} means {count} of {depth} blocks with '
            f'{protected} protected; possible are 1 to {most}.')
    return count

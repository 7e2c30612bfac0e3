"""The rounds: score, drop, align, measure, merge, record."""
import math
import time
from pathlib import Path
from typing import Any, Optional, Sequence, Tuple, Union

from mmblockdrop.registry import LOOPS
from mmblockdrop.scorers.base import pick

from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from .ends import begin, conclude, report_round
from .epoch import follow_seed, seed_epoch
from .evaluator import Gauge
from .failure import explained
from .files import save_weights
from .hook import find_hook
from .options import refuse_unknown, require_whole
from .schedule import Phase, best_epoch, build_schedule, rounds_before
from .scoring import Scoring
from .stopping import Stopping, check_protected, count_drops
from .student import Student

PUBLISHED_TRAINABLE = ('lora_', 'norm', 'patch_embed')


@LOOPS.register_module()
class DistillationLoop(EpochBasedTrainLoop):
    """Progressive block drop (arXiv 2503.16916, algorithm 1).

    A round scores every remaining block, drops the best candidate, builds
    optimizer, schedulers, EMA and the distributed wrapper anew, trains the
    student against the teacher, takes the best evaluated epoch (epoch 0,
    the student as it was dropped, included), folds LoRA into the weights
    and writes ``round_<n>.pth`` and the record. ``param_scheduler``
    describes one round: its epochs count from the start of the round.

    Args:
        runner: The runner.
        dataloader: ``train_dataloader``.
        drops: Blocks to drop, or a share of the stack such as '25%'. With
            ``tolerance`` or ``budget`` the most that may go; all but one if
            left out.
        epochs_per_round: Training epochs after each drop; 0 drops without
            training.
        drops_per_round: Blocks that go at once. Defaults to 1.
        scorer: Rule that scores candidates.
        score_dataloader: What candidates are scored on, a part of the training
            data read as for testing. Defaults to ``val_dataloader``.
        metric: Key that chooses the best epoch and enters the record.
        higher_is_better: Direction of ``metric``.
        lora: Arguments of ``add_lora`` for the blocks. None trains the weights
            themselves.
        merge_lora: 'round' merges LoRA after every round, and the next one
            starts with a fresh one; 'end' carries it on and merges it after
            the last round.
        frozen: Paths in the localizer that are frozen but for ``trainable``.
            Defaults to the module that holds the stack with LoRA, nothing
            without.
        trainable: Parts of the names of parameters inside ``frozen`` that are
            trained. Defaults to LoRA, norms and patch embedding.
        protect: Original numbers that are never dropped.
        dynamic_teacher: From the second round on, learn from the result of the
            round before. Defaults to False, the uncompressed teacher.
        val_begin: First epoch of a round that is evaluated.
        val_interval: Epochs between evaluations.
        dynamic_intervals: Epoch of a round and the ``val_interval`` from there
            on.
        subset: Rounds that train on a part of the data, by a schedule of their
            own: ``ratio`` of the samples drawn by ``seed`` for every epoch,
            ``rounds`` ('first_half', 'all_but_last' or a list), ``epochs``,
            ``param_scheduler``, ``val_begin``, ``val_interval`` and
            ``dynamic_intervals``. What is left out is as in the others.
        tolerance: Stop when the metric after alignment falls more than this
            under the teacher's, and go back to the round before.
        budget: Stop when ``params``, ``macs`` or ``latency_ms``, a number or a
            share such as '75%', are met.
        keep_scores_every: Seconds after which scoring writes what it has found
            so far.
        **unknown: Refused, with the nearest argument.

    Raises:
        ValueError: A setting that cannot work; names it and what can.
    """

    def __init__(
            self,
            runner: Runner,
            dataloader: Any,
            drops: Union[int, str, None] = None,
            epochs_per_round: int = 1,
            drops_per_round: int = 1,
            scorer: dict = dict(type='mmblockdrop.MetricScorer'),
            score_dataloader: Optional[dict] = None,
            metric: str = 'tad/mAP',
            higher_is_better: bool = True,
            lora: Optional[dict] = None,
            merge_lora: str = 'round',
            frozen: Optional[Sequence[str]] = None,
            trainable: Sequence[str] = PUBLISHED_TRAINABLE,
            protect: Sequence[int] = (),
            dynamic_teacher: bool = False,
            val_begin: int = 1,
            val_interval: int = 1,
            dynamic_intervals: Optional[Sequence[Tuple[int, int]]] = None,
            subset: Optional[dict] = None,
            tolerance: Optional[float] = None,
            budget: Optional[dict] = None,
            keep_scores_every: float = 10.,
            **unknown: Any) -> None:
        refuse_unknown(DistillationLoop, unknown, 'train_cfg')
        self.gauge = Gauge(runner, score_dataloader)
        self.hook = find_hook(runner)
        stack = self.hook.stack(runner)
        self.protect = list(protect)
        check_protected(self.protect, stack)
        self.stopping = Stopping(tolerance, budget, higher_is_better)
        self.bounded = drops is None
        self.drops = count_drops(drops, len(stack), len(self.protect),
                                 self.stopping.given)
        require_whole('train_cfg.drops_per_round', drops_per_round, 1)
        require_whole('train_cfg.epochs_per_round', epochs_per_round, 0)
        self.drops_per_round = drops_per_round
        self.metric, self.sign = metric, 1 if higher_is_better else -1
        super().__init__(runner, dataloader, self.n_rounds * epochs_per_round,
                         val_begin, val_interval)
        full = Phase(epochs_per_round, val_begin, val_interval,
                     dynamic_intervals or (), self.dataloader)
        self.schedule = build_schedule(runner, full, subset, dataloader,
                                       self.n_rounds)
        self.scoring = Scoring(runner, self.hook, self.gauge, scorer,
                               keep_scores_every)
        self.student = Student(runner, self.hook, lora, merge_lora, frozen,
                               trainable, dynamic_teacher)
        self.dynamic_teacher = dynamic_teacher
        self.built_with = runner.seed

    @property
    def n_rounds(self) -> int:
        """Rounds of the run, at most."""
        return math.ceil(self.drops / self.drops_per_round)

    @property
    def round(self) -> int:
        """Number of finished rounds."""
        return sum(r['state'] == 'aligned' for r in self.hook.rounds)

    @property
    def dropped(self) -> int:
        """Blocks dropped by the rounds so far."""
        return sum(len(r.get('dropped', [])) for r in self.hook.rounds)

    def run(self) -> nn.Module:
        """Run the rounds that are left."""
        self.runner.call_hook('before_train')
        with explained(self.runner, self.hook.record):
            self.gauge.keep_evaluator()
            if not self.hook.rounds:
                begin(self)
            self.plan()
            while self.round < self.n_rounds and not self.stopping.verdict(
                    self.hook.record):
                if self.hook.current is None:
                    self.choose_and_drop()
                    self.prepare_alignment()
                self.align()
                self.finish_round()
            conclude(self)
        self.runner.call_hook('after_train')
        return self.runner.model

    # ---------------------------------------------------- steps of a round
    def plan(self) -> None:
        """Fit rounds and epochs to the blocks that were gone before.

        Raises:
            ValueError: More drops than blocks that may go.
        """
        gone = self.hook.record['start_dropped']
        stack = self.hook.stack(self.runner)
        kept = {*gone, *self.protect, *stack.fixed}
        candidates = [i for i in range(len(stack)) if i not in kept]
        most = min(len(candidates), len(stack) - len(gone) - 1)
        if self.bounded:
            self.drops = min(self.drops, most)
        if not 1 <= self.drops <= most:
            raise ValueError(
                f'train_cfg.drops means {self.drops} blocks, but the '
                f'checkpoint has lost {gone} already and only {candidates} '
                f'may go; one block stays.{stack.why_fixed}')
        self.schedule.n_rounds = self.n_rounds
        self.schedule.before = rounds_before(len(gone), self.drops_per_round)
        self._max_epochs = self.schedule.epochs(self.n_rounds)
        self._max_iters = self.schedule.iters
        for phase in self.schedule.phases:
            follow_seed(phase.dataloader, self.built_with, self.runner.seed)

    def choose_and_drop(self) -> None:
        """Score every candidate and drop the best."""
        entry = self.scoring(self.protect)
        self.hook.rounds.append(entry)
        self.hook.write(self.runner)
        self.scoring.settled()
        count = min(self.drops_per_round, self.drops - self.dropped)
        chosen = self.scoring.best(entry, count)
        self.hook.drop(self.runner, chosen)
        left = self.hook.stack(self.runner).remaining
        entry.update(state='dropped', dropped=chosen, blocks_left=left)
        entry['metric_before'] = pick(self.gauge.validate(), self.metric)
        entry.update(self.gauge.cost())
        entry['epochs']['0'] = entry['metric_before']
        self.rebuild()
        save_weights(self.runner, self.best_name)
        self.hook.write(self.runner)
        self.runner.logger.info(
            f'Round {entry["round"]} of {self.n_rounds}: dropped block '
            f'{chosen}, left {left}, {self.metric} '
            f'{entry["metric_before"]:.4f} before alignment')

    def prepare_alignment(self) -> None:
        """Data, LoRA, what is trained, and all that holds parameters."""
        self.plan()
        if self.dynamic_teacher and self.round > 0:
            self.student.learn_from(str(self.path(f'round_{self.round}.pth')))
        seed_epoch(self.phase.dataloader.dataset, self.runner.seed,
                   self._epoch)
        self.student.prepare()
        self.rebuild()

    def align(self) -> None:
        """Train against the teacher; keep the best evaluated epoch."""
        entry = self.hook.rounds[-1]
        began = time.perf_counter()
        first = self.schedule.first_epoch(self.hook.rounds[:-1])
        last = first + self.phase.epochs
        if self._epoch > first:
            self.hook.take_over_epochs(self.path(self.best_name))
            self.judge_epoch(self._epoch - first)
        while self._epoch < last:
            seed_epoch(self.dataloader.dataset, self.runner.seed, self._epoch)
            self.run_epoch()
            self.judge_epoch(self._epoch - first)
        entry['seconds']['align'] = time.perf_counter() - began

    def judge_epoch(self, epoch: int) -> None:
        """Evaluate an epoch of the round and keep it if it is the best.

        Args:
            epoch: Number in the round, from one.
        """
        epochs = self.hook.rounds[-1]['epochs']
        if str(epoch) in epochs or not self.phase.due(epoch):
            return
        epochs[str(epoch)] = pick(self.runner.val_loop.run(), self.metric)
        if best_epoch(epochs, self.sign) == str(epoch):
            save_weights(self.runner, self.best_name)
        self.hook.write(self.runner)

    def finish_round(self) -> None:
        """Go on with the best epoch: merge, measure, write, report."""
        entry = self.hook.rounds[-1]
        best = best_epoch(entry['epochs'], self.sign)
        self.student.load(str(self.path(self.best_name)))
        entry.update(
            state='aligned',
            best_epoch=int(best),
            metric_after=entry['epochs'][best],
            last_epoch=self._epoch,
            checkpoint=f'round_{entry["round"]}.pth',
            **self.gauge.cost())
        self.rebuild()
        save_weights(self.runner, entry['checkpoint'])
        self.hook.write(self.runner)
        report_round(self.runner, self.hook.record)

    # ------------------------------------------------------------- helpers
    @property
    def phase(self) -> Phase:
        """How the round at hand is trained."""
        return self.schedule[self.hook.rounds[-1]['round']]

    @property
    def best_name(self) -> str:
        """File of the best epoch of the round at hand."""
        return f'round_{self.hook.rounds[-1]["round"]}_best.pth'

    def path(self, name: str) -> Path:
        """Path of a file of the run, by its ``name``."""
        return Path(self.runner.work_dir) / name

    def rebuild(self) -> None:
        """New optimizer, schedulers, EMA and wrapper for the round."""
        self.dataloader = self.phase.dataloader
        self.phase.recipe.rebuild(self.runner, self.max_iters)

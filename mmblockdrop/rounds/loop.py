"""The rounds: score, drop, align, measure, merge, record."""
import itertools
import math
import time
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Union

from mmblockdrop.compression import Id
from mmblockdrop.registry import LOOPS, REPAIRS
from mmblockdrop.report import round_table, write_report
from mmblockdrop.scorers.base import pick
from mmblockdrop.utils.io import json_data
from mmblockdrop.utils.lock import owned
from mmblockdrop.utils.messages import (reject_unknown, require_choice,
                                        require_whole)

from mmengine.dist import barrier, is_main_process
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from .evaluator import ModelEvaluator
from .hook import find_hook
from .iterations import ending_loader, require_length, save_by_epoch, stretches
from .rebuild import fresh_localizer, plain_model
from .resume import (LATEST, FiniteLossHook, evaluated_epochs, explained,
                     last_checkpoint_held, require_best)
from .run_file import REFUSED, RunFile, State, changes, flat_config, refusal
from .schedule import (Phase, Validation, best_epoch, build_schedule,
                       follow_seed, rounds_before, seed_epoch)
from .scoring import Scoring
from .stopping import Stopping, check_once, check_protected, count_drops
from .student import Student

#: Arguments as earlier versions took them: the group, and the key in it.
MOVED = dict(
    frozen=('student', 'frozen'),
    trainable=('student', 'trainable'),
    merge_lora=('student', 'merge_lora'),
    dynamic_teacher=('student', 'dynamic_teacher'),
    val_begin=('validation', 'begin'),
    val_interval=('validation', 'interval'),
    dynamic_intervals=('validation', 'dynamic_intervals'),
    tolerance=('stop', 'tolerance'),
    budget=('stop', 'budget'))


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
            ``stop`` the most that may go; all but one if left out.
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
        repair: Repair in closed form after every drop, before training, on the
            inputs of ``score_dataloader`` (labels are not used), such as
            ``dict(type='mmblockdrop.LinearRepair')``. With
            ``epochs_per_round=0`` it is all that follows a drop.
        align_if_needed: Leave a round untrained if the metric after its repair
            is within ``stop.tolerance`` of the full model's. Defaults to
            False.
        protect: Original numbers that are never dropped.
        student: What is trained: ``frozen``, ``trainable``, ``merge_lora`` and
            ``dynamic_teacher`` of :class:`~.student.Student`.
        validation: Which epochs of a round are evaluated: ``begin``,
            ``interval`` and ``dynamic_intervals`` of
            :class:`~.schedule.Validation`.
        subset: Rounds that train on a subset of the data, by a schedule of
            their own: ``ratio`` of the samples drawn by ``seed`` for every
            epoch, ``rounds`` ('first_half', 'all_but_last' or a list),
            ``epochs``, ``param_scheduler`` and ``validation``. What is left
            out is as in the others.
        stop: When the run stops by itself: ``tolerance`` and ``budget`` of
            :class:`~.stopping.Stopping`.
        iters_per_round: Training iterations after each drop, in place of
            ``epochs_per_round``. ``validation`` then counts iterations, too;
            what lies between two evaluations is an epoch for the runner.
        **earlier: The keys of the groups as earlier versions took them, such
            as ``val_interval``; see :data:`MOVED`.

    Raises:
        ValueError: A setting that cannot work; names it and what can.
    """

    #: What measures the model.
    evaluator_class: Any = ModelEvaluator

    def __init__(self,
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
                 repair: Optional[dict] = None,
                 align_if_needed: bool = False,
                 protect: Sequence[Id] = (),
                 student: Optional[dict] = None,
                 validation: Optional[dict] = None,
                 subset: Optional[dict] = None,
                 stop: Optional[dict] = None,
                 iters_per_round: Optional[int] = None,
                 **earlier: Any) -> None:
        if earlier.pop('keep_scores_every', None) is not None:
            runner.logger.warning('train_cfg.keep_scores_every was removed '
                                  'and has no effect.')
        groups = dict(
            student=dict(student or {}),
            validation=dict(validation or {}),
            stop=dict(stop or {}))
        move(earlier, groups, 'train_cfg')
        reject_unknown(DistillationLoop, earlier, 'train_cfg')
        if subset is not None:
            inside = dict(validation=dict(subset.get('validation', {})))
            subset = dict(subset)
            move(subset, inside, 'train_cfg.subset')
            subset.update(inside)

        self.evaluator = self.evaluator_class(runner, score_dataloader)
        self.hook = find_hook(runner)
        self.hook.call_after_replay(self._prepare_resumed)
        if not any(isinstance(h, FiniteLossHook) for h in runner.hooks):
            runner.register_hook(FiniteLossHook())
        structure = self.hook.structure(runner)
        self.protect = list(protect)
        check_protected(self.protect, structure)
        self.stopping = Stopping(
            **groups['stop'], higher_is_better=higher_is_better)
        self.bounded = drops is None
        self.drops = count_drops(drops, len(structure), len(self.protect),
                                 self.stopping.given)
        require_whole('train_cfg.drops_per_round', drops_per_round, 1)
        require_whole('train_cfg.epochs_per_round', epochs_per_round, 0)
        if isinstance(dataloader, dict):
            require_length(dataloader.get('dataset'))
        full = Phase(epochs_per_round)
        if iters_per_round is None:
            full.validation = Validation(**groups['validation'])
            dataloader = ending_loader(dataloader)
        else:
            full = stretches(iters_per_round, groups['validation'], subset)
            dataloader = ending_loader(dataloader,
                                       iters_per_round // full.epochs)
        save_by_epoch(runner, runner.hooks)
        self.drops_per_round = drops_per_round
        self.metric, self.sign = metric, 1 if higher_is_better else -1
        super().__init__(runner, dataloader, self.n_rounds * full.epochs,
                         full.validation.begin, full.validation.interval)
        full.dataloader = self.dataloader
        self.schedule = build_schedule(runner, full, subset, dataloader,
                                       self.n_rounds)
        self.scoring = Scoring(runner, self.hook, self.evaluator, scorer)
        self.student = Student(runner, self.hook, lora, **groups['student'])
        self.repair = None if repair is None else REPAIRS.build(
            dict(repair, _scope_='mmblockdrop'))
        if self.repair and not hasattr(
                plain_model(runner.model), 'uncompressed'):
            raise ValueError(
                'train_cfg.repair needs a teacher: expected model.type='
                "'mmblockdrop.TeacherStudentWrapper', found "
                f'{type(plain_model(runner.model)).__name__}')
        if self.repair and self.student.dynamic_teacher:
            raise ValueError(
                'train_cfg.repair needs the uncompressed teacher, found '
                'train_cfg.student.dynamic_teacher=True')
        self.align_if_needed = align_if_needed
        if align_if_needed and not (self.repair
                                    and self.stopping.tolerance is not None):
            raise ValueError(
                f'train_cfg.align_if_needed={align_if_needed!r} needs '
                'train_cfg.repair and train_cfg.stop.tolerance, found '
                f'repair={repair!r} and '
                f'tolerance={self.stopping.tolerance!r}')
        self.built_with = runner.seed
        self.config = flat_config(runner.cfg, MOVED)

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
        """Run the remaining rounds.

        Returns:
            The model.
        """
        with owned(self.runner.work_dir):
            return self._run()

    def _run(self) -> nn.Module:
        """Run in a folder that no other run uses."""
        self.keep_config()
        self.runner.call_hook('before_train')
        with explained(self.runner, self.hook.record):
            self.evaluator.keep_evaluator()
            if not self.hook.rounds:
                self.start()
            self.plan()
            while self.round < self.n_rounds and not self.stopping.verdict(
                    self.hook.record):
                if self.hook.current is None:
                    self.choose_and_drop()
                    self.prepare_alignment()
                self.align()
                self.finish_round()
            self.finish()
        self.runner.call_hook('after_train')
        return self.runner.model

    # ------------------------------------------------------- start and end
    def keep_config(self) -> None:
        """Keep the config that the run begins or goes on with."""
        folder = Path(self.runner.work_dir)
        file = RunFile(folder)
        if self.runner._resume and folder.resolve() not in {
                p.resolve() for p in Path(self.runner._load_from).parents}:
            file.entries = []  # it goes on from a checkpoint of another run
        within = self.hook.current['round'] if self.hook.current else None
        state: State = (self._epoch, 0 if within else self.round)
        if not self.hook.rounds:
            if self.hook.interrupted is not None:
                for line, _ in changes(file.last.get('config') or self.config,
                                       self.config, False):
                    self.runner.logger.warning(
                        line + '; the run begins again')
            file.begin(self.config, self.hook.record['load_from'])
        elif file.last.get('config') != self.config:
            file.change(self.config, state, within)
        self.hook.run_id = file.last['id']

    def check_config(self) -> None:
        """Compare the config with the one that the resumed run ran with.

        Raises:
            ValueError: What has changed cannot be mixed with what was done;
                lists every change and what it means.
        """
        folder = Path(self.runner._load_from).parent
        before = RunFile(folder).last.get('config')
        number = self.hook.current['round'] if self.hook.current else None
        within = number is not None or self.hook.lora is not None
        lines = changes(before or self.config, self.config, within)
        if any(meaning == REFUSED for _, meaning in lines):
            raise ValueError(refusal(lines, number, str(folder)))
        if lines:
            self.runner.logger.warning(
                'The config differs from the one that this run has run with:'
                '\n' + '\n'.join(line for line, _ in lines))

    def start(self) -> None:
        """Record the localizer as it comes in, with weights loaded.

        Raises:
            ValueError: Fewer blocks than drops, or a budget that is met.
            KeyError: The evaluator does not give a metric; names the nearest.
        """
        hook, evaluator, stopping = self.hook, self.evaluator, self.stopping
        record = hook.record
        if hook.interrupted is None and is_main_process():  # an older run's
            self.path(LATEST).unlink(missing_ok=True)
        self.student.merge()
        record['probe'] = evaluator.probe(
            hook.structure(self.runner), self.student.lora)
        structure = hook.structure(self.runner)
        gone = [i for i in structure.ids if i not in structure.remaining]
        check_once(hook.start_dropped, 'BlockDropHook.start_dropped')
        going = [i for i in hook.start_dropped if i not in gone]
        baseline: Dict[str, Any] = {}
        if going and stopping.tolerance is not None:
            baseline['teacher_metric'] = pick(
                evaluator.validate(), self.metric, 'train_cfg.metric',
                'The teacher')
        hook.drop(self.runner, going)
        record['start_dropped'] = [
            i for i in structure.ids if i in {*gone, *going}
        ]
        self.plan()
        metrics = evaluator.validate()
        scored = getattr(self.scoring.scorer, 'metric', None)
        if scored is not None:
            pick(metrics, scored, 'train_cfg.scorer.metric')
            baseline['score'] = (
                metrics[scored] if evaluator.score_dataloader is None else
                evaluator.score(scored))
        baseline.update(
            metric=pick(metrics, self.metric, 'train_cfg.metric'),
            metrics=json_data(metrics),
            blocks_left=structure.remaining,
            **evaluator.cost())
        record.update(metric=self.metric, baseline=baseline)
        if stopping.budget and record['start_dropped']:
            record['full'] = evaluator.cost(fresh_localizer(self.runner))
        stopping.check_start(record)
        if stopping.tolerance is not None:
            self.save('round_0.pth')
        hook.write(self.runner)
        self.runner.logger.info(
            f'Uncompressed: {self.metric} {metrics[self.metric]:.4f}, '
            f'{len(structure.remaining)} {structure.units}')

    def finish(self) -> None:
        """Settle what the result is, and record why the run ends."""
        hook, student = self.hook, self.student
        record = hook.record
        stopped = self.stopping.verdict(record) or self.stopping.spent(
            record, self.dropped)
        rolled_back = stopped['reason'] == 'tolerance'
        if rolled_back:
            hook.rounds[-1]['state'] = 'rejected'
        result = f'round_{self.round}.pth'
        if rolled_back:
            student.go_back(str(self.path(result)))
            self.rebuild()
        record.update(stopped=stopped, result=result, finished=True)
        if not student.merges_rounds and self.round:
            student.merge()
            self.rebuild()
            self.save(result)
        hook.write(self.runner)
        self.runner.logger.info(f'{stopped["text"]} The result is {result}.')
        if is_main_process():
            write_report(record, self.runner.work_dir)

    # ---------------------------------------------------- steps of a round
    def plan(self) -> None:
        """Fit rounds and epochs to the blocks that were gone before.

        Raises:
            ValueError: More drops than blocks that may go.
        """
        gone = self.hook.record['start_dropped']
        structure = self.hook.structure(self.runner)
        kept = {*gone, *self.protect, *structure.fixed}
        candidates = [i for i in structure.ids if i not in kept]
        most = min(len(candidates), len(structure) - len(gone) - 1)
        if self.bounded:
            self.drops = min(self.drops, most)
        if not 1 <= self.drops <= most:
            raise ValueError(
                f'train_cfg.drops means {self.drops} {structure.units}, but '
                f'the checkpoint has lost {gone} already and only '
                f'{candidates} may go; one stays.{structure.why_fixed}')
        self.schedule.n_rounds = self.n_rounds
        self.schedule.before = rounds_before(len(gone), self.drops_per_round)
        self._max_epochs = self.schedule.epochs(self.n_rounds)
        self._max_iters = self.schedule.iters
        for phase in self.schedule.phases:
            follow_seed(phase.dataloader, self.built_with, self.runner.seed)

    def choose_and_drop(self) -> None:
        """Score every candidate and drop the best."""
        count = min(self.drops_per_round, self.drops - self.dropped)
        entry = self.scoring(self.protect, count)
        self.hook.rounds.append(entry)
        self.hook.write(self.runner)
        self.scoring.settled()
        chosen = self.scoring.best(entry, count)
        self.hook.drop(self.runner, chosen)
        structure = self.hook.structure(self.runner)
        remaining = structure.remaining
        entry.update(state='dropped', dropped=chosen, blocks_left=remaining)
        if self.repair is not None:
            began = time.perf_counter()
            entry['repair'] = self.student.repair(
                self.repair, chosen, self.evaluator.score_batches)
            entry['seconds']['repair'] = time.perf_counter() - began
        metrics = self.evaluator.validate()
        entry['metric_before'] = pick(
            metrics, self.metric,
            of=f'Without {structure.unit} {chosen} the model')
        self.note_interval('0', metrics)
        entry.update(self.evaluator.cost())
        entry['epochs']['0'] = entry['metric_before']
        self.rebuild()
        self.save(self.best_name)
        self.hook.write(self.runner)
        self.runner.logger.info(
            f'Round {entry["round"]} of {self.n_rounds}: dropped '
            f'{structure.unit} {chosen}, remaining {remaining}, '
            f'{self.metric} {entry["metric_before"]:.4f} before alignment')

    def prepare_alignment(self) -> None:
        """Data, LoRA, what is trained, and all that holds parameters."""
        self.plan()
        if self.student.dynamic_teacher and self.round > 0:
            self.student.learn_from(str(self.path(f'round_{self.round}.pth')))
        seed_epoch(self.phase.dataloader.dataset, self.runner.seed,
                   self._epoch)
        self.student.prepare()
        self.rebuild()

    def _prepare_resumed(self) -> None:
        """Prepare the round that a resumed run is in."""
        if not self.runner._resume:
            return
        self.check_config()
        if self.hook.current:
            require_best(Path(self.runner.work_dir), self.hook.record)
            self.prepare_alignment()

    def align(self) -> None:
        """Train against the teacher; keep the best evaluated epoch."""
        entry = self.hook.current
        assert entry is not None
        if self.align_if_needed:
            entry['not_aligned'] = self.stopping.within(
                self.hook.record, entry['metric_before'])
            if entry['not_aligned']:
                self.runner.logger.info(
                    f'Round {entry["round"]} is not trained: repair alone is '
                    'within the tolerance')
                return
        began = time.perf_counter()
        first = self.schedule.first_epoch(self.hook.rounds[:-1])
        last = first + self.phase.epochs
        if self._epoch > first:
            if self.hook.interrupted is not None:
                found = evaluated_epochs(
                    self.path(self.best_name), self.hook.record)
                for key, values in found.items():
                    entry[key] = {**values, **entry.get(key, {})}
            self.judge_epoch(self._epoch - first)
        # Gradients that are accumulated count to the end of the round.
        iters = len(self.dataloader)
        self.runner.optim_wrapper.initialize_count_status(
            plain_model(self.runner.model), (self._epoch - first) * iters,
            self.phase.epochs * iters)
        while self._epoch < last:
            seed_epoch(self.dataloader.dataset, self.runner.seed, self._epoch)
            with last_checkpoint_held(self.runner):
                self.run_epoch()
            self.judge_epoch(self._epoch - first)
        entry['seconds']['align'] = time.perf_counter() - began

    def run_epoch(self) -> None:
        """Train one epoch; a sampler that never ends is cut off."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        batches = itertools.islice(self.dataloader, len(self.dataloader))
        for number, batch in enumerate(batches):
            self.run_iter(number, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def judge_epoch(self, epoch: int) -> None:
        """Evaluate an epoch of the round and keep it if it is the best.

        Args:
            epoch: Number in the round, from one.
        """
        entry = self.hook.rounds[-1]
        epochs = entry['epochs']
        if str(epoch) in epochs or not self.phase.due(epoch):
            return
        metrics = self.runner.val_loop.run()
        epochs[str(epoch)] = pick(
            metrics, self.metric, 'train_cfg.metric',
            f'After epoch {epoch} of round {entry["round"]} the model')
        self.note_interval(str(epoch), metrics)
        if best_epoch(epochs, self.sign) == str(epoch):
            self.save(self.best_name)
        self.hook.write(self.runner)

    def note_interval(self, epoch: str, metrics: Dict[str, Any]) -> None:
        """Keep the interval of the metric, if its evaluator gives one.

        Args:
            epoch: Number in the round.
            metrics: Of this epoch.
        """
        interval = metrics.get(f'{self.metric}_interval')
        if interval is not None:
            intervals = self.hook.rounds[-1].setdefault('intervals', {})
            intervals[epoch] = list(interval)

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
            **self.evaluator.cost())
        self.rebuild()
        self.save(entry['checkpoint'])
        self.hook.write(self.runner)
        self.report_round()

    def report_round(self) -> None:
        """Log the table and the curves, and write the report."""
        record, entry = self.hook.record, self.hook.rounds[-1]
        self.runner.logger.info('\n' + round_table(record))
        keys = ('metric_before', 'metric_after', 'params', 'macs',
                'latency_ms', 'latency_ratio')
        self.runner.visualizer.add_scalars(
            {f'blockdrop/{k}': entry[k]
             for k in keys if k in entry},
            step=entry['round'])
        if is_main_process():
            write_report(record, self.runner.work_dir)

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
        """Path of a file of the run.

        Args:
            name: Its name.

        Returns:
            The path.
        """
        return Path(self.runner.work_dir) / name

    def rebuild(self) -> None:
        """New optimizer, schedulers, EMA and wrapper for the round."""
        self.dataloader = self.phase.dataloader
        self.phase.recipe.rebuild(self.runner)

    def save(self, name: str) -> None:
        """Write the weights and the record into the work directory.

        Runs the hooks that act on checkpoints, so with an ``EMAHook`` the
        weights are the averaged ones. All processes return when it is there.

        Args:
            name: File name.
        """
        self.runner.save_checkpoint(
            self.runner.work_dir,
            name,
            save_optimizer=False,
            save_param_scheduler=False,
            meta=dict(epoch=self._epoch, iter=self._iter))
        barrier()


def move(given: Dict[str, Any], groups: Dict[str, Dict[str, Any]],
         key: str) -> None:
    """Move arguments of earlier versions into their groups, and check these.

    They go before what a group says, as a config of a user may inherit the
    group from one of ours.

    Args:
        given: Arguments; those that belong to a group are taken out.
        groups: Group to arguments; changed.
        key: Config key of the arguments.

    Raises:
        ValueError: A group has an unknown key; names the nearest.
    """
    for old, (group, name) in MOVED.items():
        if old in given and group in groups:
            groups[group][name] = given.pop(old)
    for group, settings in groups.items():
        names = [name for g, name in MOVED.values() if g == group]
        for name in settings:
            require_choice(f'key of {key}.{group}', name, names)

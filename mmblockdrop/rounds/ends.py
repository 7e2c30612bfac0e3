"""How a run of rounds begins and how it ends."""
from typing import Any, Dict

from mmblockdrop.report import round_table, write_report
from mmblockdrop.scorers.base import pick

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from .files import remove_file, save_weights
from .rebuild import fresh_localizer
from .stopping import check_once


def begin(loop: Any) -> None:
    """Record the localizer as it comes in.

    Args:
        loop: The loop, with weights loaded.

    Raises:
        ValueError: Fewer blocks than drops, or a budget that is met.
        KeyError: The evaluator does not give a metric; lists those it does.
    """
    hook, gauge, stopping = loop.hook, loop.gauge, loop.stopping
    record = hook.record
    if hook.interrupted is None:  # what lies there is older
        remove_file(loop.path('last_checkpoint'))
    loop.student.merge()
    record['probe'] = gauge.probe(hook.stack(loop.runner), loop.student.lora)
    stack = hook.stack(loop.runner)
    gone = set(range(len(stack))) - set(stack.remaining)
    check_once(hook.start_dropped, 'BlockDropHook.start_dropped')
    going = [i for i in hook.start_dropped if i not in gone]
    baseline: Dict[str, Any] = {}
    if going and stopping.tolerance is not None:
        baseline['teacher_metric'] = pick(gauge.validate(), loop.metric)
    hook.drop(loop.runner, going)
    record['start_dropped'] = sorted(gone.union(going))
    loop.plan()
    metrics = gauge.validate()
    for key, name in ((loop.metric, 'metric'),
                      (getattr(loop.scoring.scorer, 'metric',
                               loop.metric), 'scorer.metric')):
        pick(metrics, key, f'train_cfg.{name}')
    baseline.update(
        metric=pick(metrics, loop.metric),
        metrics=metrics,
        blocks_left=stack.remaining,
        **gauge.cost())
    record.update(metric=loop.metric, baseline=baseline)
    if stopping.budget and record['start_dropped']:
        record['full'] = gauge.cost(fresh_localizer(loop.runner))
    stopping.check_start(record)
    if stopping.tolerance is not None:
        save_weights(loop.runner, 'round_0.pth')
    hook.write(loop.runner)
    loop.runner.logger.info(
        f'Uncompressed: {loop.metric} {metrics[loop.metric]:.4f}, '
        f'{len(stack.remaining)} blocks')


def conclude(loop: Any) -> None:
    """Settle what the result is, and record why the run ends.

    Args:
        loop: The loop, after its last round.
    """
    hook, student = loop.hook, loop.student
    record = hook.record
    stopped = loop.stopping.verdict(record) or loop.stopping.spent(
        record, loop.dropped)
    back = stopped['reason'] == 'tolerance'
    if back:
        hook.rounds[-1]['state'] = 'rejected'
    result = f'round_{loop.round}.pth'
    if back:
        student.go_back(str(loop.path(result)))
        loop.rebuild()
    record.update(stopped=stopped, result=result, finished=True)
    if not student.merges_rounds and loop.round:
        student.merge()
        loop.rebuild()
        save_weights(loop.runner, result)
    hook.write(loop.runner)
    loop.runner.logger.info(f'{stopped["text"]} The result is {result}.')
    if is_main_process():
        write_report(record, loop.runner.work_dir)


def report_round(runner: Runner, record: Dict[str, Any]) -> None:
    """Log the table and the curves, and write the report.

    Args:
        runner: The runner.
        record: The record; its last round has just ended.
    """
    entry = record['rounds'][-1]
    runner.logger.info('\n' + round_table(record))
    keys = ('metric_before', 'metric_after', 'params', 'macs', 'latency_ms')
    runner.visualizer.add_scalars(
        {f'blockdrop/{k}': entry[k]
         for k in keys if k in entry},
        step=entry['round'])
    if is_main_process():
        write_report(record, runner.work_dir)

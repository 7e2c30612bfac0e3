"""Choosing the block: plain, with shared prefixes, raced.

    python projects/benchmarks/benchmark_scoring.py [--depths 12 24]

On seeded toy problems (see toy_problems.py) every rule chooses a block.
Counted are executions of a block on a batch, and how often the choice is
that of the plain rule. On the first problems the rules run one after the
other in one process and are timed. On the others every candidate runs once on
every batch, and the races are run on what that gave; that both count the same
is checked on the first. Problems that were solved before are taken from
``--results``; after ``--minutes`` no further one is begun, and the next call
goes on.
"""
import argparse
import contextlib
import io
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import (FIRST_COMPLETED, Future, ProcessPoolExecutor,
                                wait)
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmblockdrop.report import markdown_table
from mmblockdrop.scorers import (LossScorer, MetricScorer, RacingScorer,
                                 Scorer, ScoringContext)

import torch
from benchmark_page import ROOT, add_arguments, median_ratio, publish
from recorded_race import RecordedScorer, ReplayedScorer
from solved_problems import Solved
from toy_problems import Problem, make_problem

PLAIN, SHARED, RACED = 'plain', 'shared', 'raced'
RULES = (PLAIN, SHARED, RACED)
EXPLANATION = '''
Written by `benchmark_scoring.py`. A round scores what a localizer is without
each of its blocks. *plain* runs the model once per candidate, as the
published code does: N (N - 1) block executions per window. *shared* computes
the blocks in front of the missing one once; scores are equal bit for bit.
*raced* is `RacingScorer`, by loss only: after every batch candidates leave
that are behind by more than chance explains, with an error of 2 % for a single
comparison (chosen on other seeds, 100 to 119).

Sharing alone cannot go below a half: candidate i needs blocks i + 1 to N - 1
on inputs nobody else has, N (N - 1) / 2 in all, and N - 1 for the prefix, so
its share is 1/2 + 1/N.

**Problems.** Up to {problems} seeds per depth: transformer of width 32 on
windows of 32 frames of 16 x 16 pixels, ActionFormer behind it, three classes
of actions in noise, strong random weights, residual branches at scales drawn
between 0.05 and 3, trained for {steps} steps; {batches} scoring batches of
{size} windows.
*share* is of the plain executions, mean over problems. *regret* is how much
worse, in the criterion over all batches, the chosen block is than the best
one, mean over problems. The plain rule's choice is that of the shared rule,
whose scores are the same; that was checked on the timed problems.
'''


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: Defaults to ``sys.argv``.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--depths', type=int, nargs='+', default=[12, 24])
    parser.add_argument('--problems', type=int, default=20)
    parser.add_argument('--timed', type=int, default=2,
                        help='problems on which all rules are timed')
    parser.add_argument('--batches', type=int, default=32)
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--steps', type=int, default=60,
                        help='training steps of a problem')
    parser.add_argument('--criteria', nargs='+', default=['metric'],
                        choices=['metric', 'loss'])
    parser.add_argument('--jobs', type=int, default=2,
                        help='processes; timing is done in one')
    parser.add_argument('--minutes', type=float, default=3.5,
                        help='begin no further problem after this time')
    parser.add_argument('--results', type=Path,
                        default=ROOT / 'work_dirs/benchmark_scoring.json')
    add_arguments(parser)
    return parser.parse_args(argv)


def apply(scorer: Scorer, problem: Problem) -> Dict[str, Any]:
    """Let a rule choose.

    Args:
        scorer: The rule.
        problem: The problem.

    Returns:
        ``scores``, ``choice``, ``executions`` and ``seconds``.
    """
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        scores = scorer(
            ScoringContext(problem.model, problem.stack,
                           problem.stack.candidates(), problem.batches,
                           problem.new_evaluator))
    return dict(
        scores=scores,
        choice=scorer.best(scores)[0],
        executions=scorer.executions,
        seconds=time.perf_counter() - began)


def solve(depth: int, seed: int, args: argparse.Namespace) -> dict:
    """Let the rules choose on one problem.

    Args:
        depth: Blocks.
        seed: Seed of the problem.
        args: See :func:`parse_args`.

    Returns:
        Criterion to rule to what :func:`apply` gives.
    """
    torch.set_num_threads(1)
    problem = make_problem(depth, seed, args.steps, args.batches,
                           args.batch_size)
    found = {}
    for criterion in args.criteria:
        if criterion == 'metric':
            by_record = {SHARED: apply(MetricScorer(), problem)}
        else:
            whole = RecordedScorer()
            by_record = {
                SHARED: apply(whole, problem),
                RACED: apply(ReplayedScorer(whole.known), problem)
            }
        found[criterion] = by_record
        if seed < args.timed:
            found[criterion] = run_all(criterion, problem)
            for name, result in by_record.items():
                for key in ('scores', 'choice', 'executions'):
                    assert found[criterion][name][key] == result[key]
    return found


def run_all(criterion: str, problem: Problem) -> Dict[str, Dict[str, Any]]:
    """Let every rule run for itself, in turns.

    Args:
        criterion: 'metric' or 'loss'.
        problem: The problem.

    Returns:
        Rule to what :func:`apply` gives.
    """
    exact = MetricScorer if criterion == 'metric' else LossScorer
    rules = {PLAIN: exact(share_prefix=False), SHARED: exact()}
    if criterion == 'loss':
        rules[RACED] = RacingScorer()
    return {name: apply(rule, problem) for name, rule in rules.items()}


def solve_all(args: argparse.Namespace) -> Solved:
    """Solve what is not solved yet, until the time is over.

    Args:
        args: See :func:`parse_args`.

    Returns:
        All problems solved so far.
    """
    solved, end = Solved(args), time.monotonic() + 60 * args.minutes
    tasks = [(depth, seed) for seed in range(args.problems)
             for depth in args.depths if (depth, seed) not in solved]
    for task in [t for t in tasks if t[1] < args.timed]:
        if time.monotonic() < end:
            solved.add(task, solve(*task, args))
    tasks = [t for t in tasks if t[1] >= args.timed]
    running: Dict[Future, Tuple[int, int]] = {}
    with ProcessPoolExecutor(
            args.jobs, multiprocessing.get_context('fork')) as pool:
        while running or (tasks and time.monotonic() < end):
            while tasks and len(running) < args.jobs and (
                    time.monotonic() < end):
                task = tasks.pop(0)
                running[pool.submit(solve, *task, args)] = task
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                solved.add(running.pop(future), future.result())
    return solved


def table(depth: int, criterion: str, problems: List[dict],
          args: argparse.Namespace) -> str:
    """Rules by row.

    Args:
        depth: Blocks.
        criterion: 'metric' or 'loss'.
        problems: What :func:`solve` gives, problem by problem.
        args: See :func:`parse_args`.

    Returns:
        Markdown.
    """
    found = [problem[criterion] for problem in problems]
    timed = [p for p in found if PLAIN in p]
    for problem in timed:
        assert problem[PLAIN]['scores'] == problem[SHARED]['scores']
    plain = depth * (depth - 1)
    rows = []
    for name in RULES:
        mine = [p[name] for p in found if name in p]
        if not mine:  # plain, where no problem was timed
            continue
        runs = statistics.mean(x['executions'] for x in mine) / args.batches
        same = sum(p[name]['choice'] == p[SHARED]['choice'] for p in found
                   if name in p)
        regret = statistics.mean(
            abs(p[SHARED]['scores'][str(p[name]['choice'])] -
                p[SHARED]['scores'][str(p[SHARED]['choice'])])
            for p in found if name in p)
        row = {
            'rule': name,
            'executions per window': f'{runs:.1f}',
            'share': f'{runs / plain:.3f}',
            'same choice': f'{same} of {len(mine)}',
            'regret': f'{regret:.4f}'
        }
        if timed:
            seconds = [p[name]['seconds'] for p in timed]
            ratio = median_ratio(seconds, [p[PLAIN]['seconds'] for p in timed])
            row['seconds'] = f'{statistics.median(seconds):.2f}'
            row['time / plain'] = f'{ratio:.2f}'
        rows.append(row)
    title = 'mAP' if criterion == 'metric' else 'loss'
    return f'### {depth} blocks, by {title}\n\n{markdown_table(rows)}'


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark and write its section."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    parts = [
        EXPLANATION.format(
            problems=args.problems,
            steps=args.steps,
            batches=args.batches,
            size=args.batch_size).strip()
    ]
    solved = solve_all(args)
    for depth in args.depths:
        problems = solved.of(depth)
        parts += [
            table(depth, criterion, problems, args)
            for criterion in args.criteria if problems
        ]
    publish(args, 'scoring', 'Choosing the block', '\n\n'.join(parts))
    return 0


if __name__ == '__main__':
    sys.exit(main())

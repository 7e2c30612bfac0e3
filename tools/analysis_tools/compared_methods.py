"""The rows of the comparison on GRID: what each trains, and from where."""
from typing import List, Optional, Sequence

FOLDER = 'configs/grid_words/'
#: Configs of the full model, of block drop, and of ground truth only.
ENCODERS = {
    'patches': [
        f'{FOLDER}{method}_vit-w96-d8_{epochs}_grid-words.py'
        for method, epochs in (('actionformer', '36e'), ('blockdrop', '4x2e'),
                               ('blockdrop-gt', '4x2e'))
    ],
    'stem': [
        f'{FOLDER}{method}_stem-vit-w96-d8_{epochs}_grid-words.py'
        for method, epochs in (('actionformer', '20e'), ('blockdrop', '4x2e'),
                               ('blockdrop-gt', '4x2e'))
    ],
}


class Method:
    """One way to come by a model of a given depth.

    Args:
        name: Row of the table and folder.
        blocks: Blocks that are left.
        config: Config that trains it.
        options: ``--cfg-options`` for that config.
        scratch: Trained from scratch, not from the full model.
        round: Which round's result is tested.
        same_run_as: Folder of the run that gives it.
    """

    def __init__(self,
                 name: str,
                 blocks: int,
                 config: str,
                 options: Sequence[str] = (),
                 scratch: bool = False,
                 round: int = 1,
                 same_run_as: Optional[str] = None) -> None:
        self.name, self.blocks = name, blocks
        self.options, self.config = list(options), config
        self.scratch = scratch
        self.round = round
        self.run = same_run_as or f'{name}-{blocks}'


def methods(configs: Sequence[str], depth: int, epochs: int,
            per_round: int) -> List[Method]:
    """Rows of the table.

    Args:
        configs: One entry of ``ENCODERS``.
        depth: Blocks of the full model.
        epochs: Epochs of the full model.
        per_round: Epochs of alignment per dropped block.

    Returns:
        In the order of the table.
    """
    baseline, block_drop, gt_only = configs
    quarter, half = depth // 4, depth // 2
    rows = [Method('full', depth, baseline, scratch=True)]
    for drops in (quarter, half):
        left = depth - drops
        for name, config, options in (
            ('ours', block_drop, []), ('gt-only', gt_only, []),
            ('random', block_drop,
             ['train_cfg.scorer.type=mmblockdrop.RandomScorer'])):
            rows.append(
                Method(
                    name,
                    left,
                    config,
                    options,
                    round=drops,
                    same_run_as=name))
        rows.append(
            Method('at-once', left, block_drop, [
                f'train_cfg.drops={drops}',
                f'train_cfg.drops_per_round={drops}',
                f'train_cfg.epochs_per_round={drops * per_round}'
            ]))
        longer = epochs + drops * per_round
        rows.append(
            Method(
                'shallow',
                left,
                baseline, [
                    f'model.backbone.depth={left}',
                    f'train_cfg.max_epochs={longer}'
                ],
                scratch=True))
    return rows

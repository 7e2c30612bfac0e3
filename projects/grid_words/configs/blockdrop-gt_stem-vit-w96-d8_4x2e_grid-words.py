# For comparison: the same rounds, trained with ground truth only.
_base_ = './blockdrop_stem-vit-w96-d8_4x2e_grid-words.py'
model = dict(alignments=dict())
train_cfg = dict(repair=None)

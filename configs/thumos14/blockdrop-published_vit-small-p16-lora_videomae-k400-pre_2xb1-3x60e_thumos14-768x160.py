# With the defects of the published code that change its numbers: no videos are
# held out, so that the best epoch is chosen on the test videos; its windows,
# whole frames, rounding, padding and counting of positive points. For
# comparison only.
_base_ = './blockdrop_vit-small-p16-lora_videomae-k400-pre_2xb1-3x60e_thumos14-768x160.py'
published = dict(type='mmblockdrop.PublishedVideoDataset', split=None)
model = dict(
    localizer=dict(head=dict(type='mmblockdrop.PublishedActionFormerHead')),
    alignments=dict(block=dict(type='mmblockdrop.PublishedBlockAlignment')))
train_dataloader = dict(dataset=published)
val_dataloader = dict(dataset=dict(**published, subset='validation'))
test_dataloader = dict(dataset=published)
train_cfg = dict(score_dataloader=dict(dataset=published))
# The published config sets voting_thresh, which its code ignores where classes
# are suppressed apart.
val_evaluator = dict(type='mmblockdrop.PublishedTADMetric')
test_evaluator = val_evaluator

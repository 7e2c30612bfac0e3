# With the defects of the published code that change its numbers: no videos are
# held out, so that the best epoch is chosen on the test videos; no alignment
# of classes, as a softmax over one class gives none; its counting of positive
# points. For comparison only.
_base_ = './blockdrop_vit-small-p16-lora_videomae-k400-pre_4xb4-3x15e_activitynet13-768x160.py'
model = dict(
    localizer=dict(head=dict(type='mmblockdrop.PublishedActionFormerHead')),
    alignments=dict(
        _delete_=True,
        block=dict(type='mmblockdrop.BlockAlignment'),
        seg=_base_.alignments.seg))
train_dataloader = dict(dataset=dict(split=None))
val_dataloader = dict(dataset=dict(split=None, subset='validation'))
train_cfg = dict(score_dataloader=dict(dataset=dict(split=None)))
val_evaluator = dict(type='mmblockdrop.PublishedTADMetric')
test_evaluator = val_evaluator

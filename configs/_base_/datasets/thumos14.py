# THUMOS14 in OpenTAD's JSON: the official validation part is 'training' (200
# videos), the official test part is 'validation' (211 videos). A step is four
# frames, of which one is decoded. The best epoch is chosen on a tenth of the
# training videos; candidates are scored on the others.
_base_ = ['./untrimmed_video.py', './square_frames.py']
data_root = 'data/thumos14'
window_size = 768
val_split = dict(ratio=0.1, seed=0)
videos = dict(
    data_root=data_root,
    ann_file='annotations/thumos_14_anno.json',
    classes='annotations/category_idx.txt',
    drop_labels=['Ambiguous'],
    window_size=window_size,
    snippet_stride=4,
    frames_per_step=1)

train_part = dict(
    **videos, subset='training', split=dict(part='train', **val_split))
val_part = dict(
    **videos, subset='training', split=dict(part='val', **val_split))

train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    dataset=dict(**train_part, pipeline=_base_.train_pipeline))
val_dataloader = dict(
    num_workers=2, dataset=dict(**val_part, pipeline=_base_.test_pipeline))
test_dataloader = dict(
    num_workers=2,
    dataset=dict(
        **videos, subset='validation', pipeline=_base_.test_pipeline))
score_dataloader = dict(
    num_workers=2,
    dataset=dict(**train_part, pipeline=_base_.test_pipeline))

val_evaluator = dict(
    nms=dict(type='soft_nms', method='gaussian', sigma=0.7, min_score=0.001),
    max_per_video=2000)
test_evaluator = val_evaluator

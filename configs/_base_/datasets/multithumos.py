# MultiTHUMOS: the videos of THUMOS14 with 65 classes, in OpenTAD's JSON.
_base_ = './thumos14.py'
data_root = 'data/multithumos'
videos = dict(
    data_root=data_root,
    data_prefix=dict(video='../thumos14/videos'),
    ann_file='annotations/multithumos_anno.json')

train_dataloader = dict(dataset=videos)
val_dataloader = dict(dataset=videos)
test_dataloader = dict(dataset=videos)
score_dataloader = dict(dataset=videos)

val_evaluator = dict(
    tiou_thresholds=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    nms=dict(sigma=0.5),
    max_per_video=8000)
test_evaluator = val_evaluator

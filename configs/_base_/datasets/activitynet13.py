# ActivityNet-1.3. A whole video is resampled to 192 grid steps of four frames.
# The localizer finds actions of any class; in testing a file with class scores
# of whole videos gives their classes. The best epoch is chosen, and candidates
# are scored, on training videos without classes. The block list names the
# videos that are no longer online.
_base_ = ['./untrimmed_video.py', './square_frames.py']
data_root = 'data/activitynet13'
window_size = 192
val_split = dict(ratio=0.05, seed=0)
videos = dict(
    data_root=data_root,
    ann_file='annotations/activity_net.v1-3.min.json',
    classes='annotations/category_idx.txt',
    block_list='annotations/blocked.json',
    filename_tmpl='v_{}',
    windows='resize',
    window_size=window_size,
    frames_per_step=4,
    # No file has to be opened for its rate: resampling goes by the number of
    # frames.
    fps=15)
one_class = dict(**videos, class_agnostic=True, subset='training')
train_part = dict(**one_class, split=dict(part='train', **val_split))
val_part = dict(**one_class, split=dict(part='val', **val_split))

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(
        **train_part,
        filter_cfg=dict(min_action_share=0.01),
        pipeline=_base_.train_pipeline))
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(**val_part, pipeline=_base_.test_pipeline))
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(
        **videos, subset='validation', pipeline=_base_.test_pipeline))
score_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(**train_part, pipeline=_base_.test_pipeline))

val_evaluator = dict(
    tiou_thresholds=[
        0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95
    ],
    nms=dict(
        type='soft_nms',
        method='gaussian',
        sigma=0.7,
        min_score=0.001,
        voting_thresh=0.9),
    max_per_video=100)
# A hundred segments of each of the two best classes of a video.
test_evaluator = dict(
    **val_evaluator | dict(max_per_video=200),
    external_classifier=dict(
        path=f'{data_root}/classifiers/cuhk_val_simp_7.json', topk=2))

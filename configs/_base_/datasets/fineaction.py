# FineAction, read like ActivityNet: whole videos on 192 steps of four frames,
# classes by a file of scores of whole videos.
_base_ = './activitynet13.py'
data_root = 'data/fineaction'
videos = dict(
    data_root=data_root,
    ann_file='annotations/annotations_gt.json',
    block_list=None,
    filename_tmpl='{}',
    fps=None)

train_dataloader = dict(dataset=videos)
val_dataloader = dict(dataset=videos)
test_dataloader = dict(dataset=videos)
score_dataloader = dict(dataset=videos)

val_evaluator = dict(nms=dict(sigma=0.75))
test_evaluator = dict(
    nms=dict(sigma=0.75),
    external_classifier=dict(
        path=f'{data_root}/classifiers/'
        'new_swinB_1x1x256_views2x3_max_label_avg_prob.json'))

_base_ = ['./multithumos.py', './frames_160.py']
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
score_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))

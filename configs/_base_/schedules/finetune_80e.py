# As finetune_60e.py, but cut off at 80 of 100 epochs: OpenTAD on MultiTHUMOS.
_base_ = './finetune_60e.py'
train_cfg = dict(max_epochs=80, val_begin=50, val_interval=2)

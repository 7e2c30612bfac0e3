# The paper's rounds, but each drop is repaired in closed form before it is
# aligned, and candidates are judged after their own repair.
_base_ = './blockdrop_vit-small-p16-lora_videomae-k400-pre_2xb1-3x60e_thumos14-768x160.py'
train_cfg = dict(
    scorer=dict(repaired=True), repair=dict(type='mmblockdrop.LinearRepair'))

# AdaTAD's encoder in place of LoRA: everything of it is frozen but an adapter
# of a quarter of the width behind each block, which carries time across clips.
adapters = dict(
    backbone=dict(
        type='mmblockdrop.AdapterViT',
        adapters=dict(ratio=0.25),
        lora=None,
        trainable=['adapter'],
        # As published: blocks are left out at random although frozen.
        stochastic_depth=True))

"""Merging LoRA as the published code does, and where it should not."""
from mmblockdrop.backbones.vit import LoRAViT
from mmblockdrop.compression import has_lora, merge_lora
from mmblockdrop.utils.checkpoint import load_strictly

import pytest
import torch
from parity_weights import our_name, our_state

pytestmark = pytest.mark.parity

#: Cases of the published merge that lose nothing.
SOUND = ('full', 'block1_dropped', 'no_ema')


@pytest.fixture(scope='module')
def recorded(golden):
    return golden('lora_merge.pt')


def weight_sets(case):
    """(weights before, weights after) of live and averaged weights."""
    for name in ('state_dict', 'state_dict_ema'):
        if name in case['input']:
            yield case['input'][name], case['output'][name]


def encoder_part(state):
    """Entries of the encoder under the names of ``LoRAViT``."""
    return {
        name[len('backbone.'):]: value
        for name, value in our_state(state).items()
        if name.startswith('backbone.')
    }


def build(sizes, state):
    """Encoder with the recorded entries; the others are its own."""
    left = {int(k.split('.')[1]) for k in state if k.startswith('blocks.')}
    model = LoRAViT(
        img_size=16,
        patch_size=8,
        num_frames=4,
        embed_dims=sizes['embed_dims'],
        depth=sizes['depth'],
        num_heads=sizes['num_heads'],
        drop_blocks=set(range(sizes['depth'])) - left,
        lora=dict(rank=sizes['lora_rank']))
    return model, {**model.state_dict(), **state}


@pytest.mark.parametrize('name', SOUND)
def test_merged_weights(recorded, name):
    for before, after in weight_sets(recorded['cases'][name]):
        state = encoder_part(before)
        model, whole = build(recorded['model'], state)
        assert set(state) <= set(model.state_dict())
        load_strictly(model, whole, name)
        clips = torch.randn(2, 3, 4, 16, 16)
        model.eval()
        attached = model(clips)
        assert merge_lora(model) == 2 * len(
            {k.split('.')[1] for k in state if 'lora_' in k})
        merged = model.state_dict()
        wanted = encoder_part(after)
        assert not has_lora(model) and set(wanted) <= set(merged)
        for key, value in wanted.items():
            torch.testing.assert_close(
                merged[key], value, rtol=0, atol=1e-6, msg=key)
        torch.testing.assert_close(
            model(clips), attached, rtol=1e-4, atol=1e-4)


def test_every_block_is_merged(recorded):
    """The published merge stops at a depth it is told."""
    case = recorded['cases']['depth_too_small']
    for before, after in weight_sets(case):
        state, wanted = encoder_part(before), encoder_part(after)
        model, whole = build(recorded['model'], state)
        load_strictly(model, whole, 'depth_too_small')
        merge_lora(model)
        merged = model.state_dict()
        untouched = 0
        for base in (k for k in state if k.endswith('.base_layer.weight')):
            layer = base[:-len('.base_layer.weight')]
            a, b = (state[f'{layer}.lora_{x}.default.weight'] for x in 'AB')
            torch.testing.assert_close(
                merged[f'{layer}.weight'],
                state[base] + b @ a,
                rtol=0,
                atol=1e-6)
            untouched += base in wanted
        assert untouched


def test_broken_lora_is_rejected_and_nothing_changes(recorded):
    case = recorded['cases']['block2_broken']
    sound = recorded['cases']['full']['input']['state_dict']
    before = case['input']['state_dict']
    lost, = set(sound) - set(before)
    lost = our_name(lost, lora=True)[len('backbone.'):]
    model, whole = build(recorded['model'], encoder_part(before))
    own = {k: v.clone() for k, v in model.state_dict().items()}
    del whole[lost]
    with pytest.raises(ValueError, match='1 missing: ' + lost):
        load_strictly(model, whole, 'broken.pth')
    assert all(torch.equal(v, own[k]) for k, v in model.state_dict().items())
    left = {
        k.split('.')[1]
        for k in encoder_part(case['output']['state_dict']) if 'lora' in k
    }
    assert left == {lost.split('.')[1]}

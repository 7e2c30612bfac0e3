"""Video transformers of other projects become ours, and go back."""
import argparse
import subprocess
import sys
from pathlib import Path

from mmblockdrop.backbones.vit import LoRAViT
from mmblockdrop.compression import add_lora
from mmblockdrop.convert import (convert_encoder, encoder_for_mmaction,
                                 read_checkpoint, save_checkpoint,
                                 suggested_config, unwrap)

import pytest
import torch
from mmaction.models.backbones.vit_mae import VisionTransformer

ROOT = Path(__file__).resolve().parents[2]
C, HIDDEN, DEPTH = 16, 40, 3
SIZE = dict(img_size=16, num_frames=4)


def original(prefix='', depth=DEPTH):
    """Names and shapes of the files that the authors of VideoMAE release."""
    shapes = {
        'patch_embed.proj.weight': (C, 3, 2, 8, 8),
        'patch_embed.proj.bias': (C, )
    }
    for i in range(depth):
        block = {
            'norm1.weight': (C, ),
            'norm1.bias': (C, ),
            'attn.q_bias': (C, ),
            'attn.v_bias': (C, ),
            'attn.qkv.weight': (3 * C, C),
            'attn.proj.weight': (C, C),
            'attn.proj.bias': (C, ),
            'norm2.weight': (C, ),
            'norm2.bias': (C, ),
            'mlp.fc1.weight': (HIDDEN, C),
            'mlp.fc1.bias': (HIDDEN, ),
            'mlp.fc2.weight': (C, HIDDEN),
            'mlp.fc2.bias': (C, )
        }
        shapes.update({f'blocks.{i}.{k}': v for k, v in block.items()})
    generator = torch.Generator().manual_seed(0)
    return {
        prefix + k: 0.2 * torch.randn(v, generator=generator)
        for k, v in shapes.items()
    }


def test_weights_are_read_by_torch_of_before_2_6(tmp_path, monkeypatch):
    torch.save(original(), tmp_path / 'vit.pth')
    monkeypatch.setattr(torch, '__version__', '2.1.2+cpu')
    for name in ('safe_globals', 'get_safe_globals'):
        monkeypatch.delattr(torch.serialization, name)
    assert read_checkpoint(str(tmp_path / 'vit.pth')).keys() == (
        original().keys())


def pretrained():
    """Before fine-tuning: a decoder, and a norm behind the encoder."""
    state = original('encoder.')
    state['encoder.norm.weight'] = torch.ones(C)
    state['encoder.norm.bias'] = torch.zeros(C)
    state['mask_token'] = torch.zeros(1, 1, 8)
    state['encoder_to_decoder.weight'] = torch.zeros(8, C)
    state['decoder.blocks.0.mlp.fc1.weight'] = torch.zeros(8, 8)
    state['decoder.head.weight'] = torch.zeros(8, 8)
    return dict(model=state, epoch=1600, args=argparse.Namespace(lr=1e-3))


def finetuned(wrapper='module'):
    """After fine-tuning: a norm behind the mean, and a classifier."""
    state = original()
    state['fc_norm.weight'] = torch.randn(C)
    state['fc_norm.bias'] = torch.randn(C)
    state['head.weight'] = torch.zeros(10, C)
    state['head.bias'] = torch.zeros(10)
    return {wrapper: state} if wrapper else state


def vit(kind=LoRAViT, **kwargs):
    kwargs = dict(depth=DEPTH, **kwargs)
    return kind(
        patch_size=8,
        embed_dims=C,
        num_heads=2,
        mlp_ratio=HIDDEN / C,
        return_feat_map=True,
        **SIZE,
        **kwargs).eval()


def mmaction_file():
    """mmaction2's own: a recognizer."""
    state = {
        f'backbone.{k}': torch.randn_like(v)
        for k, v in vit(VisionTransformer).state_dict().items()
    }
    state['cls_head.fc_cls.weight'] = torch.zeros(10, C)
    return dict(meta=dict(mmaction_version='1.2.0'), state_dict=state)


def test_before_fine_tuning(tmp_path):
    path = tmp_path / 'videomae.pth'
    torch.save(pretrained(), path)
    converted, report = convert_encoder(
        read_checkpoint(str(path)), str(path), **SIZE)
    report.check()
    assert set(report.filled) == {'pos_embed', 'fc_norm.weight',
                                  'fc_norm.bias'}
    assert set(report.left_out) == {
        k
        for k in pretrained()['model']
        if not k.startswith('encoder.') or k.startswith('encoder.norm')
    }
    model = vit()
    model.load_state_dict(converted['state_dict'])
    theirs = pretrained()['model']
    for ours, name in (('patch_embed.projection.weight',
                        'encoder.patch_embed.proj.weight'),
                       ('blocks.2.mlp.layers.0.0.bias',
                        'encoder.blocks.2.mlp.fc1.bias'),
                       ('blocks.1.mlp.layers.1.weight',
                        'encoder.blocks.1.mlp.fc2.weight')):
        assert torch.equal(model.state_dict()[ours], theirs[name])
        assert report.renamed[name] == ours


@pytest.mark.parametrize('wrapper', ['module', 'model', ''])
def test_after_fine_tuning(wrapper):
    converted, report = convert_encoder(finetuned(wrapper), **SIZE)
    report.check()
    assert set(report.left_out) == {'head.weight', 'head.bias'}
    vit().load_state_dict(converted['state_dict'])


def test_positions_are_mmactions():
    converted, _ = convert_encoder(pretrained(), **SIZE)
    torch.testing.assert_close(
        converted['state_dict']['pos_embed'],
        vit(VisionTransformer).pos_embed,
        rtol=0,
        atol=1e-6)


def test_round_trip_with_mmaction():
    given = mmaction_file()
    converted, report = convert_encoder(given, **SIZE)
    report.check()
    assert set(report.left_out) == {'cls_head.fc_cls.weight'}
    back, report = encoder_for_mmaction(converted)
    report.check()
    wanted = {
        k: v
        for k, v in given['state_dict'].items() if k.startswith('backbone.')
    }
    assert back['state_dict'].keys() == wanted.keys()
    assert all(torch.equal(back['state_dict'][k], wanted[k]) for k in wanted)


def test_original_to_mmaction_computes_the_same():
    converted, _ = convert_encoder(finetuned(), **SIZE)
    back, _ = encoder_for_mmaction(converted)
    theirs = vit(VisionTransformer)
    theirs.load_state_dict(
        {k.removeprefix('backbone.'): v
         for k, v in back['state_dict'].items()})
    ours = vit()
    ours.load_state_dict(converted['state_dict'])
    clips = torch.randn(2, 3, 4, 16, 16)
    torch.testing.assert_close(
        ours(clips), theirs(clips), rtol=1e-4, atol=1e-5)


def test_compressed_localizer_with_lora_to_mmaction():
    model = vit(drop_blocks=[1])
    add_lora(model, rank=2, alpha=4)
    for name, parameter in model.named_parameters():
        if 'lora_' in name:
            torch.nn.init.normal_(parameter, std=0.3)
    state = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    state['head.reg_head.bias'] = torch.zeros(2)
    record = dict(
        stack='backbone.blocks',
        depth=3,
        rounds=[],
        lora=dict(rank=2, alpha=4))
    back, report = encoder_for_mmaction(
        dict(state_dict=state, meta=dict(blockdrop=record)))
    report.check()
    assert report.dropped == [1] and back['meta']['blocks'] == [0, 2]
    assert set(report.left_out) == {'head.reg_head.bias'}
    theirs = VisionTransformer(
        patch_size=8, embed_dims=C, num_heads=2, mlp_ratio=HIDDEN / C,
        return_feat_map=True, depth=2, **SIZE).eval()
    theirs.load_state_dict(
        {k.removeprefix('backbone.'): v
         for k, v in back['state_dict'].items()})
    clips = torch.randn(2, 3, 4, 16, 16)
    torch.testing.assert_close(
        model(clips), theirs(clips), rtol=1e-4, atol=1e-5)


def test_giant_is_recognised():
    """VideoMAEv2-g: 40 blocks, width 1408, MLP of 48 / 11, patches of 14."""
    with torch.device('meta'):
        state = {
            'patch_embed.projection.weight': torch.empty(1408, 3, 2, 14, 14),
            'blocks.39.attn.q_bias': torch.empty(1408),
        }
        for i in range(40):
            name = f'blocks.{i}.mlp.layers.0.0.weight'
            state[name] = torch.empty(6144, 1408)
    cfg = suggested_config(state)
    assert cfg['depth'] == 40 and cfg['patch_size'] == 14
    assert cfg['embed_dims'] == 1408 and cfg['num_heads'] == 16
    assert cfg['mlp_ratio'] == pytest.approx(48 / 11)
    assert int(cfg['embed_dims'] * cfg['mlp_ratio']) == 6144


def test_misfits_are_named():
    content = finetuned()
    state = content['module']
    lost = state.pop('blocks.1.norm2.bias')
    state['blocks.1.norm2.bais'] = lost
    state['blocks.0.attn.q_bias'] = torch.zeros(3)
    state['extra'] = torch.zeros(1)
    _, report = convert_encoder(content, 'vit.pth', **SIZE)
    assert report.missing == ['blocks.1.norm2.bias']
    assert report.unexpected == ['blocks.1.norm2.bais', 'extra']
    assert report.reshaped == [f'blocks.0.attn.q_bias (3,) instead of ({C},)']
    with pytest.raises(ValueError, match='vit.pth.*1 missing: blocks.1.norm2'):
        report.check()


def test_absent_block_of_an_encoder_is_missing():
    state = {
        k: v
        for k, v in original().items() if not k.startswith('blocks.1.')
    }
    _, report = convert_encoder(state, **SIZE)
    assert len(report.missing) == 13
    assert all(k.startswith('blocks.1.') for k in report.missing)


def test_stored_positions_of_another_size_are_reshaped():
    content = mmaction_file()
    _, report = convert_encoder(content, img_size=32, num_frames=4)
    assert report.reshaped == [
        f'pos_embed (1, 8, {C}) instead of (1, 32, {C})'
    ]


def test_unknown_files_are_rejected(tmp_path):
    with pytest.raises(ValueError, match='no video transformer'):
        convert_encoder(dict(state_dict={'conv1.weight': torch.zeros(1)}))
    with pytest.raises(ValueError, match='holds no weights'):
        unwrap(dict(epoch=3), 'a.pth')
    with pytest.raises(ValueError, match='not a checkpoint of mmblockdrop'):
        encoder_for_mmaction(finetuned())
    (tmp_path / 'vit.pth').touch()
    with pytest.raises(FileNotFoundError, match='did you mean .*vit.pth'):
        read_checkpoint(str(tmp_path / 'vti.pth'))


def saved(content, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize('convert', [True, False])
def test_pretrained_takes_converted_and_mmaction_files(tmp_path, convert):
    content = mmaction_file()
    wanted = content['state_dict']
    if convert:
        content, _ = convert_encoder(content, **SIZE)
    model = vit(
        pretrained=saved(content, tmp_path),
        drop_blocks=[1],
        lora=dict(rank=2))
    model.init_weights()
    for name, value in model.state_dict().items():
        if 'lora_B' in name:
            assert not value.any()  # fresh
        elif 'lora_' not in name:
            theirs = wanted['backbone.' + name.replace('.base_layer', '')]
            assert torch.equal(value, theirs), name


@pytest.mark.parametrize('lost,found,match', [
    ('backbone.blocks.0.norm1.bias', None, '1 missing: blocks.0.norm1.bias'),
    (None, ('backbone.norm.bias', C), '1 unexpected: norm.bias'),
    (None, ('backbone.blocks.0.norm1.bias', 3), '1 reshaped: blocks.0.norm1'),
    (None, ('patch_embed.proj.weight', 3), 'convert it with tools/'),
])
def test_pretrained_rejects_what_does_not_fit(tmp_path, lost, found, match):
    content = mmaction_file()
    content['state_dict'].pop(lost, None)
    if found:
        content['state_dict'][found[0]] = torch.zeros(found[1])
    model = vit(pretrained=saved(content, tmp_path))
    with pytest.raises(ValueError, match=match):
        model.init_weights()


class Payload:
    """Would run code when a pickle is opened carelessly."""

    def __reduce__(self):
        return (subprocess.check_call, (['true'], ))


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / 'evil.pth'
    torch.save(dict(model=original(), args=Payload()), path)
    with pytest.raises(ValueError, match='none of its code'):
        read_checkpoint(str(path))


def test_existing_files_stay(tmp_path):
    path = tmp_path / 'a.pth'
    save_checkpoint(dict(state_dict={}), str(path))
    with pytest.raises(FileExistsError, match='a.pth is a file that exists'):
        save_checkpoint(dict(state_dict={}), str(path))
    with pytest.raises(FileExistsError, match='that was read'):
        save_checkpoint(dict(state_dict={}), str(path), str(path))
    assert [p.name for p in tmp_path.iterdir()] == ['a.pth']


def load_program(name):
    sys.path.insert(0, str(ROOT / 'tools' / 'model_converters'))
    try:
        return __import__(name)
    finally:
        sys.path.pop(0)


def test_programs(tmp_path, capsys):
    """There and back through the command line."""
    given, ours = tmp_path / 'vit.pth', tmp_path / 'ours.pth'
    torch.save(pretrained(), given)
    there = load_program('videomae_to_mmblockdrop')
    size = ['--img-size', '16', '--num-frames', '4']
    there.main([str(given), '--check', *size])
    assert not ours.exists()
    assert '0 missing' in capsys.readouterr().out
    there.main([str(given), str(ours), *size])
    back = tmp_path / 'mmaction.pth'
    load_program('mmblockdrop_to_mmaction2').main([str(ours), str(back)])
    assert 'set backbone.depth=3' in capsys.readouterr().out
    found, _ = convert_encoder(read_checkpoint(str(back)), **SIZE)
    first = read_checkpoint(str(ours))['state_dict']
    assert all(torch.equal(found['state_dict'][k], first[k]) for k in first)
    with pytest.raises(SystemExit):
        there.main([str(given)])


def test_program_for_detectors(tmp_path, capsys):
    from mmblockdrop.registry import MODELS

    import toy
    from mmengine.config import Config
    model = toy.localizer()
    published = {}
    for name, value in MODELS.build(model).state_dict().items():
        name = name.replace('backbone.', 'backbone.model.backbone.', 1)
        name = name.replace('head.', 'rpn_head.', 1) if name.startswith(
            'head.') else name
        if '.blocks.1.' not in name:
            published[f'module.{name}'] = value
    given = tmp_path / 'best.pth'
    torch.save(dict(epoch=3, state_dict=published), given)
    config = tmp_path / 'config.py'
    Config(dict(model=model)).dump(config)
    program = load_program('pbd_to_mmblockdrop')
    program.main([str(given), str(config), '--check'])
    assert 'lost: [1]' in capsys.readouterr().out
    program.main([str(given), str(config), str(tmp_path / 'ours.pth')])
    record = read_checkpoint(str(tmp_path / 'ours.pth'))['meta']['blockdrop']
    assert record['start_dropped'] == [1] and record['rounds'] == []
    assert (record['version'], record['kind']) == (2, 'BlockStack')
    del published['module.rpn_head.reg_head.bias']
    torch.save(dict(epoch=3, state_dict=published), given)
    with pytest.raises(ValueError, match='1 missing: head.reg_head.bias'):
        program.main([str(given), str(config), str(tmp_path / 'bad.pth')])
    assert not (tmp_path / 'bad.pth').exists()

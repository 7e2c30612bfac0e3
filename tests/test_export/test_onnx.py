"""ONNX files agree with the model, whatever the batch."""

from mmblockdrop.apis import init_localizer
from mmblockdrop.export import ExportError, network, to_onnx

import export
import export_kit
import numpy as np
import onnxruntime
import pytest
import torch
import toy


@pytest.mark.slow
@pytest.mark.parametrize('which, drop', [
    ('model', [1, 2]),
    ('encoder', [1, 2]),
    ('encoder', ['backbone.blocks.1.attn', 'backbone.blocks.2.mlp']),
])
def test_localizer_and_encoder_become_onnx(tmp_path, capsys, which, drop):
    paths = export_kit.save(tmp_path, toy.localizer(), drop)
    assert export.main([
        *paths, str(tmp_path), '--onnx', which, '--shape', '1', '1', '3',
        str(toy.FRAMES), str(toy.SIZE), str(toy.SIZE)
    ]) == 0
    assert 'agree with onnxruntime' in capsys.readouterr().out
    model = init_localizer(*paths, device='cpu')
    session = onnxruntime.InferenceSession(str(tmp_path / f'{which}.onnx'))
    for batch in (1, 4):
        inputs = torch.randn(batch, 1, 3, toy.FRAMES, toy.SIZE, toy.SIZE)
        if which == 'encoder':
            model = getattr(model, 'backbone', model)
            inputs = inputs[:, 0, :, :toy.CLIP]
        with torch.no_grad():
            expected = network(model)(inputs)
        found = session.run(None, dict(inputs=inputs.numpy()))
        assert len(found) == len(expected)
        for a, b in zip(expected, found):
            assert a.shape == b.shape
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-3, atol=1e-4)


def test_bmn_without_blocks_becomes_onnx(tmp_path):
    """No config of mmaction2 can say that a convolution is gone."""
    stack = ['x_1d_b.2', 'x_2d_p.2']
    paths = export_kit.save(tmp_path, export_kit.BMN, [0], stack)
    assert export.main([*paths, str(tmp_path / 'out'), '--onnx']) == 1
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['model.onnx']


def test_operation_without_counterpart_is_an_error(tmp_path):

    class Odd(torch.nn.Module):

        def forward(self, x):
            return torch.linalg.qr(x)[0]

    with pytest.raises(ExportError, match='ONNX has no counterpart'):
        to_onnx(Odd(), torch.randn(1, 3, 3), tmp_path / 'odd.onnx')

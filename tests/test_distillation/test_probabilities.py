"""Alignment of maps and curves of probabilities."""
from mmblockdrop.distillation import (BinaryKLLoss, ModuleAlignment,
                                      TeacherStudentWrapper)
from mmblockdrop.registry import MODELS
from mmblockdrop.utils.recorder import not_in_place

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import nn


def test_divergence_by_hand():
    s, t = torch.tensor([.5, .9]), torch.tensor([.25, .9])
    expected = .25 * torch.tensor(.5).log() + .75 * torch.tensor(1.5).log()
    torch.testing.assert_close(BinaryKLLoss()(s, t), expected / 2)
    for scale in (1., .1):
        torch.testing.assert_close(
            BinaryKLLoss(logits=True, scale=scale)(s.logit() / scale,
                                                   t.logit() / scale),
            expected / 2)


@pytest.mark.parametrize('logits', [False, True])
def test_equal_is_zero_and_sure_is_finite(logits):
    values = torch.tensor([0., .3, 1.])
    if logits:
        values = torch.tensor([-200., .3, 200.])
    loss = BinaryKLLoss(logits=logits)
    assert loss(values, values) == pytest.approx(0, abs=1e-6)
    student = values.flip(0).requires_grad_()
    value = loss(student, values)
    value.backward()
    assert value > 1 and student.grad.isfinite().all()
    empty = values[:0].requires_grad_()
    assert loss(empty, empty.detach()) == 0


def test_logits_are_not_probabilities():
    with pytest.raises(ValueError, match='-3 to 2.*logits=True'):
        BinaryKLLoss()(torch.tensor([-3., 2.]), torch.tensor([0., 1.]))
    with pytest.raises(ValueError, match='scale'):
        BinaryKLLoss(scale=.1)


class Map(nn.Module):
    """Owner of a mask."""

    def __init__(self):
        super().__init__()
        self.register_buffer('bm_mask', torch.tensor([[1., 1], [1, 0]]))


def test_only_what_the_mask_shows_counts():
    owner = nn.Module()
    owner.localizer = Map()
    align = ModuleAlignment('m', mask='localizer.bm_mask')
    assert align.paths(owner) == ['m']
    s, t = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    s[..., 1, 1] = 9.  # masked
    s[0, 0, 0, 0] = 3.
    assert align(dict(m=s), dict(m=t), owner, []) == 9 / 18
    with pytest.raises(ValueError, match="mean 'localizer.bm_mask'"):
        ModuleAlignment('m', mask='localizer.mask').paths(owner)
    with pytest.raises(ValueError, match=r'\(2, 2\).*\(2, 3, 5\)'):
        align(dict(m=s.new_zeros(2, 3, 5)), dict(m=s.new_zeros(2, 3, 5)),
              owner, [])


def test_padding_does_not_count():
    samples = [
        BaseDataElement(metainfo=dict(valid_steps=4, window_size=8)),
        BaseDataElement(metainfo=dict(window_size=8))
    ]
    s = torch.zeros(2, 3, 4)
    s[0, :, 2:] = 5.  # two of four steps are padding
    s[1, :, 3] = 1.
    align = ModuleAlignment('m', mask='valid_steps')
    assert align(dict(m=s), dict(m=s * 0), nn.Module(), samples) == 3 / 18


@MODELS.register_module()
class HeadInLossOnly(BaseModel):
    """Predicts on the way to the loss, in place, as foreign models do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
        self.head = nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        feats = self.body(inputs)
        if mode == 'tensor':
            return feats
        return dict(loss=self.head(feats).mean())


def wrapper(tmp_path, module, **kwargs):
    torch.manual_seed(0)
    path = tmp_path / 'x.pth'
    torch.save(dict(state_dict=HeadInLossOnly().state_dict()), path)
    model = TeacherStudentWrapper(
        dict(type='mmblockdrop.HeadInLossOnly'),
        str(path),
        dict(a=dict(type='mmblockdrop.ModuleAlignment', module=module)),
        **kwargs)
    model.init_weights()
    return model


def test_teacher_that_predicts_in_its_loss(tmp_path):
    inputs = torch.ones(3, 2)
    with pytest.raises(ValueError, match="'head'.*teacher_mode='loss'"):
        wrapper(tmp_path, 'head')(inputs, [], mode='loss')
    model = wrapper(tmp_path, 'head', teacher_mode='loss')
    assert model(inputs, [], mode='loss')['loss_align_a'] == 0
    model.student.head.weight.data += 1
    losses = model(inputs, [], mode='loss')
    losses['loss_align_a'].backward()
    assert model.student.head.weight.grad.abs().sum() > 0
    assert model.teacher.head.weight.grad is None
    with pytest.raises(ValueError, match='teacher_mode'):
        wrapper(tmp_path, 'head', teacher_mode='predict')


def test_recordings_are_ahead_of_the_activation(tmp_path):
    model = wrapper(tmp_path, 'body.0')
    assert not model.student.body[1].inplace
    assert not model.teacher.body[1].inplace
    with torch.no_grad():
        model.student.body[0].weight.zero_()
        model.student.body[0].bias.fill_(-1.)
        model.teacher.body[0].weight.zero_()
        model.teacher.body[0].bias.fill_(-3.)
    # After a rectifier both would be zero.
    assert model(torch.ones(1, 2), [], mode='loss')['loss_align_a'] == 4
    plain = nn.ReLU(inplace=True)
    assert not not_in_place(plain).inplace

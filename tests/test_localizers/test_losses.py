"""Focal, DIoU and GIoU losses."""
from mmblockdrop.localizers import DIoULoss, FocalLoss, GIoULoss
from mmblockdrop.localizers.losses import (diou_loss, giou_loss,
                                           sigmoid_focal_loss)

import pytest
import torch


def close(ours, theirs):
    torch.testing.assert_close(
        ours, torch.as_tensor(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parity
def test_focal_loss_as_published(golden):
    for case in golden('kd_losses.pt')['focal']:
        logits = case['logits'].clone().requires_grad_()
        loss = FocalLoss(alpha=case['alpha'], gamma=case['gamma'])
        value = loss(logits, case['target'], reduction=case['reduction'])
        value.sum().backward()
        close(value, case['loss'])
        close(logits.grad, case['grad_logits'])
        close(loss(case['logits'], case['target'], reduction='none'),
              case['none'])


@pytest.mark.parity
@pytest.mark.parametrize('name,kind', [('diou', DIoULoss),
                                       ('giou', GIoULoss)])
def test_segment_losses_as_published(golden, name, kind):
    for case in golden('kd_losses.pt')[name]:
        pred = case['pred'].clone().requires_grad_()
        value = kind(reduction=case['reduction'])(pred, case['target'])
        value.sum().backward()
        close(value, case['loss'])
        if 'grad_pred' in case:
            close(pred.grad, case['grad_pred'])


def test_segment_losses_by_hand():
    pred = torch.tensor([[0., 4.], [0., 1.]])
    target = torch.tensor([[2., 6.], [3., 4.]])
    # overlap 2 of 6, hull 6, centres 2 apart; no overlap, hull 4, 3 apart
    torch.testing.assert_close(
        diou_loss(pred, target), torch.tensor([1 - 1 / 3 + 4 / 36,
                                               1 + 9 / 16]))
    torch.testing.assert_close(
        giou_loss(pred, target), torch.tensor([1 - 1 / 3, 1 + 2 / 4]),
        atol=1e-5, rtol=0)


def test_focal_loss_without_focus_is_cross_entropy():
    logits, target = torch.randn(5, 3), torch.rand(5, 3)
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, target, alpha=-1, gamma=0),
        torch.nn.functional.binary_cross_entropy_with_logits(
            logits, target, reduction='none'))


@pytest.mark.parametrize('kind', [DIoULoss, GIoULoss])
def test_degenerate_segments_stay_finite(kind):
    pred = torch.tensor([[1., 1.], [3., 2.], [0., 0.]], requires_grad=True)
    target = torch.tensor([[1., 1.], [2., 3.], [5., 5.]])
    loss = kind()(pred, target)
    loss.backward()
    assert loss.isfinite() and pred.grad.isfinite().all()


def test_nothing_to_compare_is_zero_and_connected():
    pred = torch.zeros(0, 2, requires_grad=True)
    for reduction in ('sum', 'mean'):
        loss = DIoULoss()(pred * 1, torch.zeros(0, 2), reduction=reduction)
        assert loss == 0 and loss.requires_grad
    assert DIoULoss(loss_weight=3)(
        torch.tensor([[0., 1.]]), torch.tensor([[1., 2.]])) == 3.75


def test_unknown_reduction_is_rejected():
    with pytest.raises(ValueError, match="reduction='max'"):
        DIoULoss(reduction='max')(torch.zeros(1, 2), torch.ones(1, 2))

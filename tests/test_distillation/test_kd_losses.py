"""Distances between student and teacher."""
from mmblockdrop.distillation import (ClassDKDLoss, ClassKLLoss,
                                      FeatureMSELoss, TokenRelationLoss)

import pytest
import torch


def close(ours, theirs):
    torch.testing.assert_close(
        ours, torch.as_tensor(theirs), rtol=1e-5, atol=1e-6)


def compare(loss, case, *extra):
    student = case['student'].clone().requires_grad_()
    value = loss(student, case['teacher'], *extra)
    value.backward()
    close(value, case['loss'])
    close(student.grad, case['grad_student'])


@pytest.mark.parity
@pytest.mark.parametrize('name,kind', [('feature_mse', FeatureMSELoss),
                                       ('relation', TokenRelationLoss)])
def test_feature_losses_as_published(golden, name, kind):
    compare(kind(), golden('kd_losses.pt')[name])


@pytest.mark.parity
def test_class_kl_as_published(golden):
    cases = golden('kd_losses.pt')['cls_kl']
    one_class = [case for case in cases if case['student'].shape[1] == 1]
    assert one_class and len(one_class) < len(cases)
    for case in cases:
        loss = ClassKLLoss(case['temperature'])
        if case['student'].shape[1] > 1:
            compare(loss, case)


@pytest.mark.parity
def test_one_class_is_rejected_where_the_published_loss_is_zero(golden):
    for case in golden('kd_losses.pt')['cls_kl']:
        if case['student'].shape[1] > 1:
            continue
        assert case['loss'] == 0 and not case['grad_student'].any()
        with pytest.raises(ValueError, match="activation='sigmoid'"):
            ClassKLLoss(activation='softmax')(case['student'],
                                              case['teacher'])
        default = ClassKLLoss(case['temperature'])
        student = case['student'].clone().requires_grad_()
        loss = ClassKLLoss(case['temperature'], activation='sigmoid')
        value = loss(student, case['teacher'])
        value.backward()
        assert value == default(case['student'], case['teacher'])
        assert value > 1e-3 and student.grad.abs().max() > 1e-3


@pytest.mark.parity
def test_class_dkd_as_published(golden):
    cases = golden('kd_losses.pt')['cls_dkd']
    assert {'single', 'multi', 'none'} <= {case['kind'] for case in cases}
    for case in cases:
        loss = ClassDKDLoss(case['alpha'], case['beta'], case['temperature'])
        compare(loss, case, case['target'])


@pytest.mark.parametrize('loss', [
    FeatureMSELoss(),
    TokenRelationLoss(),
])
def test_equal_features_cost_nothing(loss):
    x = torch.randn(2, 5, 4)
    assert loss(x, x) == 0
    assert loss(x, x + 1) > 0


@pytest.mark.parametrize('activation', ['softmax', 'sigmoid'])
def test_kl_by_hand(activation):
    t = 2.
    student, teacher = torch.tensor([[1., -1.]]), torch.tensor([[0., 2.]])
    p, q = (x / t for x in (teacher, student))
    if activation == 'softmax':
        p, q = p.softmax(1), q.softmax(1)
        wanted = (p * (p / q).log()).sum()
    else:
        p, q = p.sigmoid(), q.sigmoid()
        wanted = (p * (p / q).log() + (1 - p) * ((1 - p) /
                                                 (1 - q)).log()).sum()
    loss = ClassKLLoss(t, activation)
    close(loss(student, teacher), wanted * t**2)
    close(loss(teacher, teacher), torch.tensor(0.))
    close(loss(student.repeat(3, 1), teacher.repeat(3, 1)), wanted * t**2)


def test_no_points_cost_nothing():
    empty = torch.zeros(0, 4, requires_grad=True)
    for loss in (ClassKLLoss(), ClassKLLoss(activation='sigmoid')):
        value = loss(empty, empty.detach())
        value.backward()
        assert value == 0


def test_dkd_is_finite_for_extreme_logits():
    student = torch.tensor([[80., -80., 0.]], requires_grad=True)
    teacher = torch.tensor([[-80., 80., 0.]])
    target = torch.tensor([[0., 1., 0.]])
    value = ClassDKDLoss()(student, teacher, target)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="activation is 'softmx'.*'softmax'"):
        ClassKLLoss(activation='softmx')
    with pytest.raises(ValueError, match='two classes'):
        ClassDKDLoss()(torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2, 1))

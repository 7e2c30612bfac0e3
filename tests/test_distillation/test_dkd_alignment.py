"""Decoupled distillation of the classes of a localizer."""
from mmblockdrop.distillation import ClassAlignment, record
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.registry import init_default_scope


@pytest.mark.parametrize('smoothing', [0., 0.1])
def test_label_smoothing_leaves_dkd_finite(smoothing):
    """Positive are the annotated classes, not the smoothed targets."""
    init_default_scope('mmaction')
    torch.manual_seed(0)
    config = toy.localizer()
    config['head'].update(label_smoothing=smoothing)
    student, teacher = (MODELS.build(config).eval() for _ in range(2))
    batch = student.data_preprocessor(toy.batch(), False)
    align = ClassAlignment(loss=dict(type='mmblockdrop.ClassDKDLoss'))
    with record(student, ['head']) as ours:
        student(**batch, mode='tensor')
    with torch.no_grad(), record(teacher, ['head']) as theirs:
        teacher(**batch, mode='tensor')
    value = align(ours, theirs, student, batch['data_samples'])
    value.backward()
    assert value.isfinite() and value > 0
    assert student.head.cls_head.weight.grad.isfinite().all()

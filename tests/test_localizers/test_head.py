"""The dense head."""
from mmblockdrop.localizers import ActionFormerHead
from mmblockdrop.localizers.actionformer import head as head_module
from mmblockdrop.localizers.losses import sigmoid_focal_loss

import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData

LENGTHS = (16, 8, 4)


def make_head(**kwargs):
    cfg = dict(num_classes=3, in_channels=4, num_convs=1, strides=(1, 2, 4))
    return ActionFormerHead(**{**cfg, **kwargs})


def pyramid(valid=(16, 10)):
    torch.manual_seed(0)
    feats = [torch.randn(2, 4, n) for n in LENGTHS]
    masks = [
        torch.arange(0, 16, 16 // n) < torch.tensor(valid)[:, None]
        for n in LENGTHS
    ]
    return feats, masks


def sample(*actions):
    out = BaseDataElement()
    out.gt_instances = InstanceData(
        segments=torch.tensor([a[:2] for a in actions]).float().view(-1, 2),
        labels=torch.tensor([a[2] for a in actions], dtype=torch.long))
    return out


DATA = [sample((2, 7, 0), (1, 15, 2)), sample((3, 8.5, 1))]


def test_shapes_and_prior():
    head = make_head(prior_prob=0.02)
    head.init_weights()
    preds = head(*pyramid())
    assert [x.shape for x in preds.cls_logits] == [(2, 3, n) for n in LENGTHS]
    assert [x.shape for x in preds.reg_offsets] == [(2, 2, n)
                                                    for n in LENGTHS]
    assert all((x >= 0).all() for x in preds.reg_offsets)
    torch.testing.assert_close(head.cls_head.bias.sigmoid(),
                               torch.full((3, ), 0.02))
    flat = head.flatten(preds)
    assert flat.cls_logits.shape == (2, 28, 3)
    assert flat.points.shape == (28, 4)
    assert flat.valid.sum(1).tolist() == [28, 10 + 5 + 3]


def test_decoding_inverts_the_targets():
    head = make_head()
    preds = head(*pyramid())
    classes, offsets = head.targets(preds, DATA)
    split = [x.transpose(1, 2) for x in offsets.split(LENGTHS, dim=1)]
    segments, scores = head.decode(preds._replace(reg_offsets=split))
    positive = classes[..., 2].bool()
    assert positive.any() and scores.shape == (2, 28, 3)
    torch.testing.assert_close(segments[positive],
                               torch.tensor([[1., 15.]]).expand_as(
                                   segments[positive]))
    assert torch.equal(
        head.positives(preds, DATA), classes.any(-1)
        & head.flatten(preds).valid)


@pytest.mark.parametrize('data', [DATA, [sample(), sample()],
                                  [sample(), DATA[1]]])
@pytest.mark.parametrize('reg_weight', [1., -1.])
def test_losses_are_finite_and_reach_every_parameter(data, reg_weight):
    head = make_head(reg_weight=reg_weight)
    losses = head.loss(head(*pyramid()), data)
    assert set(losses) == {'loss_cls', 'loss_reg'}
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_padding_has_no_part_in_the_losses():
    head = make_head().eval()
    feats, masks = pyramid()
    preds = head(feats, masks)
    expected = head.loss(preds, DATA)
    for level, mask in enumerate(masks):
        hidden = ~mask.unsqueeze(1)
        preds.cls_logits[level] = preds.cls_logits[level] + 9. * hidden
        preds.reg_offsets[level] = preds.reg_offsets[level] + 9. * hidden
    for name, value in head.loss(preds, DATA).items():
        torch.testing.assert_close(value, expected[name])


def test_running_normalizer(monkeypatch):
    head = make_head(loss_normalizer=20)
    preds = head(*pyramid())
    count = head.positives(preds, DATA).sum().item()
    plain = head.eval().loss(preds, DATA)
    assert head.loss_normalizer == 20
    running = head.train().loss(preds, DATA)
    expected = 0.9 * 20 + 0.1 * count
    assert head.loss_normalizer.item() == pytest.approx(expected)
    for name in plain:
        torch.testing.assert_close(running[name] * expected,
                                   plain[name] * count)

    def mean_of_two(tensor, op):
        assert op == 'mean'
        tensor.fill_((tensor.item() + 31) / 2)

    monkeypatch.setattr(head_module, 'all_reduce', mean_of_two)
    head.loss(preds, DATA)
    assert head.loss_normalizer.item() == pytest.approx(
        0.9 * expected + 0.1 * (count + 31) / 2)


def test_normalizer_survives_a_checkpoint():
    state = make_head(loss_normalizer=63.27).state_dict()
    head = make_head()
    head.load_state_dict(state)
    assert head.loss_normalizer.item() == pytest.approx(63.27)
    assert head.loss_normalizer.dtype == torch.float32


def test_dynamic_weight_balances_the_losses():
    head = make_head(reg_weight=0).eval()
    losses = head.loss(head(*pyramid()), DATA)
    torch.testing.assert_close(losses['loss_reg'], losses['loss_cls'])


def test_boundary_loss_by_config():
    for kind in ('DIoULoss', 'GIoULoss'):
        head = make_head(loss_reg=dict(type=f'mmblockdrop.{kind}'))
        assert type(head.loss_reg).__name__ == kind


def test_smoothing_moves_the_class_targets():
    head = make_head(label_smoothing=0.2).eval()
    preds = head(*pyramid())
    classes, _ = head.targets(preds, DATA)
    flat = head.flatten(preds)
    expected = sigmoid_focal_loss(flat.cls_logits, 0.8 * classes + 0.2 / 4)
    count = head.positives(preds, DATA).sum()
    torch.testing.assert_close(
        head.loss(preds, DATA)['loss_cls'],
        expected[flat.valid].sum() / count)


def test_outputs_are_float32_under_autocast():
    with torch.autocast('cpu', dtype=torch.bfloat16):
        head = make_head()
        preds = head(*pyramid())
        losses = head.loss(preds, DATA)
    assert {x.dtype
            for x in preds.cls_logits + preds.reg_offsets} == {torch.float32}
    assert {x.dtype for x in losses.values()} == {torch.float32}


def test_wrong_levels_are_named():
    with pytest.raises(ValueError, match='head.strides has 3 .* 2 levels'):
        make_head()(*(x[:2] for x in pyramid()))
    with pytest.raises(ValueError, match='regression_ranges has 1 .* 3'):
        make_head(regression_ranges=[(0, 4)])

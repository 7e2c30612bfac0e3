"""Record one detector of the published code, part by part."""
import copy
from typing import Any, Dict, List, Sequence

import torch
from mmengine.config import ConfigDict
from published import INFERENCE, build
from torch import Tensor, nn

Given = Dict[str, Any]


def load(model: nn.Module, state: Dict[str, Tensor]) -> Any:
    """Load weights as the published training does.

    Args:
        model: A published detector.
        state: Names with or without ``module.``.

    Returns:
        Missing and unexpected names, the latter as in the file.
    """
    given = {k[7:] if k.startswith('module.') else k: k for k in state}
    values = {name: state[key].clone() for name, key in given.items()}
    missing, unexpected = model.load_state_dict(values, strict=False)
    return list(missing), [given[name] for name in unexpected]


def batch_of(given: Given, inputs: str = 'inputs',
             masks: str = 'masks') -> Dict[str, Any]:
    """One batch as the published loader hands it over."""
    count = len(given[masks])
    return dict(
        inputs=given[inputs],
        masks=given[masks].clone(),
        metas=given['metas'][:count],
        gt_segments=given['gt_segments'][:count],
        gt_labels=given['gt_labels'][:count])


class CallRecorder:
    """Keep what a method of an object was given and returned."""

    def __init__(self, owner: Any, name: str) -> None:
        self.calls: List[Any] = []
        method = getattr(owner, name)

        def call(*args, **kwargs):
            out = method(*args, **kwargs)
            self.calls.append((args, out))
            return out

        setattr(owner, name, call)


@torch.no_grad()
def record_forward(model: nn.Module, batch: Dict[str, Any]) -> Given:
    """What a detector computes for a batch, up to the proposals.

    Args:
        model: A published detector.
        batch: See :func:`batch_of`.

    Returns:
        The entries of ``student`` in the README.
    """
    encoder = CallRecorder(model.backbone, 'forward')
    head = CallRecorder(model.rpn_head, 'get_valid_proposals_scores')
    proposals, scores = model.forward_test(batch['inputs'], batch['masks'],
                                           batch['metas'])
    (points, offsets, logits, masks), _ = head.calls[0]
    del model.backbone.forward, model.rpn_head.get_valid_proposals_scores
    found = dict(
        backbone_feat=encoder.calls[0][1],
        points=points,
        cls_logits=logits,
        reg_offsets=offsets,
        level_masks=masks,
        proposals=proposals,
        scores=scores)
    return copy.deepcopy(found)


def window_results(model: nn.Module, batch: Dict[str, Any], post: dict,
                   classes: Any) -> Dict[str, list]:
    """Detections of each window in seconds."""
    with torch.no_grad():
        return model(
            batch['inputs'],
            batch['masks'],
            batch['metas'],
            return_loss=False,
            infer_cfg=INFERENCE,
            post_cfg=ConfigDict(post),
            ext_cls=classes)


def video_results(found: Dict[str, list], post: dict) -> Dict[str, list]:
    """Detections of each video after suppression."""
    from opentad.cores.test_engine import gather_ddp_results
    return gather_ddp_results(1, copy.deepcopy(found), ConfigDict(post))


@torch.no_grad()
def record_teacher(model: nn.Module, batch: Dict[str, Any]) -> Given:
    """Features and targets for the student."""
    encoder = CallRecorder(model.backbone, 'forward')
    mid, out, cls, reg = model(**batch, return_loss=True, is_teacher=True)
    feat = encoder.calls[0][1][0]
    del model.backbone.forward
    return dict(
        backbone_feat=feat,
        feat_mid_list=mid,
        feat_out_list=out,
        cls_target=cls,
        reg_target=reg)


def student_losses(model: nn.Module, teacher: Given,
                   batch: Dict[str, Any]) -> Dict[str, Tensor]:
    """All losses of a student beside what its teacher said."""
    hints = {k: v for k, v in teacher.items() if k != 'backbone_feat'}
    return model(**batch, **hints, return_loss=True, is_student=True)


def record_training(model: nn.Module, teacher: Given, batch: Dict[str, Any],
                    weights: Dict[str, float]) -> Given:
    """Losses in both modes and the gradients of the published cost.

    Args:
        model: A published student.
        teacher: What :func:`record_teacher` returned.
        batch: See :func:`batch_of`.
        weights: Weight of each loss.

    Returns:
        The entries of ``train`` in the README.
    """
    with torch.no_grad():
        still = student_losses(model, teacher, batch)
    before = model.rpn_head.loss_normalizer.clone()
    model.train()
    for module in model.modules():
        if hasattr(module, 'drop_prob'):
            module.drop_prob = 0.
    losses = student_losses(model, teacher, batch)
    cost = sum(value * weights[name] for name, value in losses.items())
    cost.backward()
    named = dict(model.named_parameters())
    norms = {
        name: p.grad.norm().item()
        for name, p in named.items() if p.grad is not None
    }
    trained = [name for name, p in named.items() if p.requires_grad]
    model.eval()
    return dict(
        losses_eval_mode={k: v.item() for k, v in still.items()},
        losses_train_mode={k: v.item() for k, v in losses.items()},
        cost_train_mode=cost.item(),
        loss_normalizer_before=before,
        loss_normalizer_after=model.rpn_head.loss_normalizer.clone(),
        grad_norms=norms,
        requires_grad_after_forward=trained,
        trainable_without_grad=[n for n in trained if n not in norms],
        total_grad_norm=torch.tensor(list(norms.values())).norm().item())


def record_student(configs: dict, given: Given, drops: Sequence[int],
                   teacher: Given, weights: Dict[str, float],
                   post: dict) -> Given:
    """One entry of ``student``."""
    model = build(configs['student'], drops)
    keys = list(model.state_dict())
    missing, unexpected = load(model, given['checkpoint']['state_dict'])
    batch = batch_of(given)
    found = record_forward(model, batch)
    if post['sliding_window']:
        found['window_results'] = window_results(model, batch, post,
                                                 given['classes'])
        found['video_results'] = video_results(found['window_results'], post)
    found.update(
        drop_idx=list(drops),
        load_missing=missing,
        load_unexpected=unexpected,
        state_dict_keys=keys)
    if 'inputs_native' in given:
        short = ('backbone_feat', 'proposals', 'scores')
        native = record_forward(
            model, batch_of(given, 'inputs_native', 'masks_native'))
        found['native'] = {k: native[k] for k in short}
        averaged = build(configs['student'], drops)
        load(averaged, given['checkpoint']['state_dict_ema'])
        averaged = record_forward(averaged, batch)
        found['ema'] = {k: averaged[k] for k in short}
    found['train'] = record_training(model, teacher, batch, weights)
    return found


def merged_entries(state: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Entries that change when LoRA is folded in, as published."""
    changed = {}
    for name, matrix in state.items():
        if name.endswith('.A'):
            stem = name[:-len('.A')]
            layer = stem.replace('lora_', '') + '.weight'
            changed[layer] = state[layer] + (matrix @ state[stem + '.B']).t()
    return changed


def record_detector(configs: dict, given: Given,
                    variants: Sequence[Sequence[int]],
                    weights: Dict[str, float], post: dict) -> Given:
    """Everything but the baselines.

    Args:
        configs: ``student`` and ``teacher``.
        given: Checkpoint, inputs and annotation.
        variants: Dropped blocks of each student.
        weights: Weight of each loss.
        post: Published post-processing.

    Returns:
        ``given`` and what was recorded.
    """
    averaged = given['checkpoint']['state_dict_ema']
    changed = merged_entries(averaged)
    merged = {k: v for k, v in averaged.items() if 'lora' not in k}
    merged.update(changed)
    model = build(configs['teacher'])
    keys = list(model.state_dict())
    load(model, merged)
    teacher = record_teacher(model, batch_of(given))
    students = {
        '_'.join(map(str, drops)) or 'none': record_student(
            configs, given, drops, teacher, weights, post)
        for drops in variants
    }
    return dict(
        given,
        merged_ema_changed=changed,
        student=students,
        teacher=dict(teacher, state_dict_keys=keys))


def record_dynamic(configs: dict, given: Given, teacher_drops: Sequence[int],
                   drops: Sequence[int], weights: Dict[str, float]) -> Given:
    """A teacher that has lost blocks itself."""
    averaged = given['checkpoint']['state_dict_ema']
    merged = {k: v for k, v in averaged.items() if 'lora' not in k}
    model = build(configs['teacher'], teacher_drops)
    load(model, {**merged, **merged_entries(averaged)})
    batch = batch_of(given)
    teacher = record_teacher(model, batch)
    student = build(configs['student'], drops)
    load(student, given['checkpoint']['state_dict'])
    nothing = [
        not isinstance(x, Tensor) or x.numel() == 0
        for x in teacher['feat_out_list']
    ]
    return dict(
        teacher_drop_idx=list(teacher_drops),
        student_drop_idx=list(drops),
        train=record_training(student, teacher, batch, weights),
        feat_out_is_none=nothing,
        cls_target=teacher['cls_target'],
        reg_target=teacher['reg_target'])


def record_baselines(configs: dict, given: Given, post: dict) -> Given:
    """The uncompressed detector with folded and with attached LoRA."""
    batch = batch_of(given)
    averaged = given['checkpoint']['state_dict_ema']
    merged = {k: v for k, v in averaged.items() if 'lora' not in k}
    folded = build(configs['baseline_cp'])
    keys = list(folded.state_dict())
    load(folded, {**merged, **merged_entries(averaged)})
    found = record_forward(folded, batch)
    for name in ('points', 'level_masks'):
        found.pop(name)
    found['window_results'] = window_results(folded, batch, post,
                                             given['classes'])
    found['video_results'] = video_results(found['window_results'], post)
    with torch.no_grad():
        losses = folded(**batch, return_loss=True)
    found['losses_eval_mode'] = {k: v.item() for k, v in losses.items()}
    found['state_dict_keys'] = keys
    attached = build(configs['baseline_lora'])
    load(attached, averaged)
    lora = record_forward(attached, batch)
    return dict(
        baseline_cp=found,
        baseline_lora_ema={
            k: lora[k]
            for k in ('backbone_feat', 'proposals', 'scores')
        })

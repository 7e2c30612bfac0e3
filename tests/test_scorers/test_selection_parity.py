"""One step of selection against the numbers of the published code."""
from mmblockdrop.compression import BlockStack
from mmblockdrop.evaluation.activitynet import evaluate_detections
from mmblockdrop.registry import MODELS
from mmblockdrop.scorers import LossScorer, MetricScorer, ScoringContext

import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from parity_weights import load, localizer_config, our_state
from torch.utils.data import DataLoader

pytestmark = pytest.mark.parity

STACK, MODEL_TOLERANCE = 'backbone.blocks', 3e-3


@pytest.fixture(scope='module')
def recorded(golden):
    """(selection, detector, configs)"""
    return (golden('selection.pt'), golden('pbd_detector.pt'),
            golden('pbd_detector_config.json'))


def key_of(tiou):
    return f'tad/mAP@{tiou:.2f}'


def evaluator(selection, nms):
    """Our metric with the published rules."""
    metric = dict(
        type='mmblockdrop.PublishedTADMetric',
        tiou_thresholds=selection['tiou_thresholds'],
        max_per_video=10**6,
        nms=nms)
    made = Evaluator([metric])
    made.dataset_meta = dict(classes=selection['classes'])
    return made


def annotated(selection, video):
    """Annotation of a video in seconds, and its labels."""
    entry = selection['annotation']['database'][video]
    segments = [a['segment'] for a in entry['annotations']]
    labels = [
        selection['classes'].index(a['label']) for a in entry['annotations']
    ]
    return dict(
        video_name=video,
        fps=entry['frame'] / entry['duration'],
        duration=entry['duration'],
        video_segments=torch.tensor(segments, dtype=torch.float64).numpy(),
        video_labels=torch.tensor(labels).numpy())


def dataset(selection):
    """Samples of the scoring windows, in order."""
    masks = torch.cat(list(selection['masks']))
    samples = []
    for i, window in enumerate(selection['windows']):
        video = window['video_name']
        sample = ActionDataSample(
            metainfo=dict(
                annotated(selection, video),
                window_start_frame=window['first_frame'],
                snippet_stride=selection['feature_stride'],
                offset_frames=0,
                window_size=selection['window'],
                valid_steps=int(masks[i].sum())))
        sample.gt_instances = InstanceData(
            segments=selection['gt_segments_grid'][i],
            labels=selection['gt_labels_grid'][i].long())
        samples.append(
            dict(inputs=selection['frames'][video], data_samples=sample))
    return samples


def batches(selection):
    sizes = {len(batch) for batch in selection['batches']}
    return DataLoader(
        dataset(selection),
        batch_size=max(sizes),
        collate_fn=lambda items: {k: [i[k] for i in items]
                                  for k in items[0]})


@pytest.fixture(scope='module')
def scored(recorded, tmp_path_factory):
    """For each recorded step: its numbers, our scores, block executions."""
    selection, detector, configs = recorded
    nms = configs['post_processing']['nms']
    nms = dict(
        type='soft_nms',
        method='gaussian',
        sigma=nms['sigma'],
        max_num=nms['max_seg_num'])
    found = []
    for gold in selection['rounds'].values():
        model = MODELS.build(
            localizer_config(configs['student'], selection['window'],
                             gold['drop_idx']))
        load(model, our_state(detector['checkpoint']['state_dict']))
        scores = {}
        for tiou in [*selection['tiou_thresholds'], None]:
            key = 'tad/mAP' if tiou is None else key_of(tiou)
            scorer = MetricScorer(key, share_prefix=tiou != 0.5)
            if tiou in (0.5, None):
                scores[key] = scorer(
                    ScoringContext(
                        model, BlockStack(model, STACK), gold['candidates'],
                        batches(selection),
                        lambda: evaluator(selection, nms)))
            if tiou == 0.5:
                plain = scorer.executions
        found.append((gold, scores, plain))
    return found


def test_candidates_and_choice(scored):
    for gold, scores, plain in scored:
        by_half = scores[key_of(0.5)]
        assert list(by_half) == gold['candidates']
        assert MetricScorer().best(by_half) == [gold['chosen']]
        assert plain == gold['block_forwards']


def test_metrics_from_the_model(scored, recorded):
    tolerance = recorded[0].get('model_tolerance', MODEL_TOLERANCE)
    for gold, scores, _ in scored:
        for i, metrics in zip(gold['candidates'], gold['metrics']):
            assert scores[key_of(0.5)][i] == pytest.approx(
                metrics['mAP@0.5'], abs=tolerance)
            assert scores['tad/mAP'][i] == pytest.approx(
                metrics['average_mAP'], abs=tolerance)


def test_metrics_from_recorded_detections(recorded):
    """Equal but for the order of equal scores, which is not defined."""
    selection = recorded[0]
    spread = selection['tie_order_spread'] + 1e-9
    for gold in selection['rounds'].values():
        for results, metrics in zip(gold['results'], gold['metrics']):
            found = {
                video: [
                    dict(
                        segment=[round(x, 2) for x in row[:2]],
                        label=selection['classes'][int(row[2])],
                        score=round(row[3], 4)) for row in rows.tolist()
                ]
                for video, rows in results.items()
            }
            ours = evaluate_detections(
                selection['annotation'],
                dict(results=found),
                selection['tiou_thresholds'],
                subset='training').metrics
            for name, theirs in metrics.items():
                assert ours[name] == pytest.approx(theirs, abs=spread)


@pytest.mark.parametrize('share_prefix', [True, False])
def test_losses(recorded, tmp_path, share_prefix):
    """The published loss rule is missing; its ingredients are recorded."""
    selection, detector, configs = recorded
    kl = dict(
        type='mmblockdrop.ClassKLLoss',
        temperature=configs['student']['temperature'])
    diou = dict(type='mmblockdrop.DIoULoss')
    weights = configs['loss_weight']
    alignments = dict(
        loss_out=dict(type='mmblockdrop.PublishedBlockAlignment'),
        loss_cls_kd=dict(type='mmblockdrop.ClassAlignment', loss=kl),
        loss_reg_kd=dict(type='mmblockdrop.SegmentAlignment', loss=diou))
    for name, cfg in alignments.items():
        cfg['weight'] = weights[name]
    out_weight = weights['loss_out']
    state = our_state(detector['checkpoint']['state_dict'])
    torch.save(dict(state_dict=state), tmp_path / 'full.pth')
    for gold in selection['rounds'].values():
        # The published step divides by the blocks before it leaves one out.
        n = len(gold['candidates'])
        alignments['loss_out']['weight'] = out_weight * (n - 1) / n
        model = MODELS.build(
            dict(
                type='mmblockdrop.TeacherStudentWrapper',
                localizer=localizer_config(configs['student'],
                                           selection['window']),
                checkpoint=str(tmp_path / 'full.pth'),
                alignments=alignments))
        model.init_weights()
        stack = BlockStack(model.student, STACK)
        for index in gold['drop_idx']:
            stack.remove(index)
        scores = LossScorer(
            with_alignments=True, share_prefix=share_prefix)(
                ScoringContext(model, stack, gold['candidates'],
                               batches(selection), lambda: None))
        for i, losses in zip(gold['candidates'], gold['losses']):
            wanted = sum(weights[k] * v for k, v in losses.items())
            assert scores[i] == pytest.approx(wanted, rel=2e-5)

"""End-to-end temporal action localizer on frames or on features."""
from typing import Dict, List, Optional, Union

from mmblockdrop.backbones.base import VideoEncoder
from mmblockdrop.compression.spec import BlockSpec
from mmblockdrop.registry import MODELS
from mmblockdrop.structures.time_grid import steps_to_seconds
from mmblockdrop.utils.messages import require_choice

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .head import DensePredictions


@MODELS.register_module()
class ActionFormer(BaseModel):
    """ActionFormer (Zhang et al., ECCV 2022) behind an optional encoder.

    A window of frames is cut into clips, the encoder turns every clip into
    features, and the localizer works on their sequence, the feature grid of
    ``window_size`` steps. Segments are steps inside and seconds outside.

    Args:
        projection: Config of the module that builds the pyramid.
        head: Config of the dense head.
        window_size: Steps of a window.
        backbone: Config of an encoder that maps clips [N, 3, t, H, W] to
            [N, C, t', h, w], or None if the inputs are features [B, C, T].
        neck: Config of a module between pyramid and head, or None.
        clip_frames: Frames per clip; must divide the frames of a window.
        clip_chunk: Clips the encoder sees at once where no gradients are
            computed, None for all; bounds the memory. Forward hooks inside the
            backbone then run several times per batch.
        pooling: How a clip's map becomes one vector per step: 'mean' over
            space, or 'concat', which keeps the places apart (C * h * w
            channels go to the projection), for small maps.
        test_cfg: ``score_thr``, least score of a detection, and
            ``pre_nms_topk``, detections kept per window.
        data_preprocessor: Config of the preprocessor.
        init_cfg: MMEngine's initialization config.

    Raises:
        ValueError: If the levels of projection, neck and head differ,
            ``test_cfg`` has an unknown key, or ``pooling`` is unknown.
    """
    #: See :class:`~mmblockdrop.localizers.end_to_end.EndToEndLocalizer`.
    reads_windows = True

    block_spec = BlockSpec(
        alignments=dict(
            cls=dict(type='mmblockdrop.ClassAlignment', head='head'),
            seg=dict(type='mmblockdrop.SegmentAlignment', head='head')))

    def __init__(self,
                 projection: dict,
                 head: dict,
                 window_size: int,
                 backbone: Optional[dict] = None,
                 neck: Optional[dict] = None,
                 clip_frames: int = 16,
                 clip_chunk: Optional[int] = None,
                 pooling: str = 'mean',
                 test_cfg: Optional[dict] = None,
                 data_preprocessor: Union[dict, nn.Module, None] = None,
                 init_cfg: Union[dict, List[dict], None] = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone) if backbone else None
        self.projection = MODELS.build(projection)
        self.neck = MODELS.build(neck) if neck else None
        self.head = MODELS.build(head)
        self.window_size = window_size
        self.encoder = VideoEncoder(window_size, clip_frames, clip_chunk,
                                    pooling)
        self.test_cfg = dict(score_thr=0.001, pre_nms_topk=2000)
        for key in test_cfg or {}:
            require_choice('key of model.test_cfg', key, self.test_cfg)
        self.test_cfg.update(test_cfg or {})
        self._check_levels()

    def _check_levels(self) -> None:
        levels = getattr(self.projection, 'num_levels', None)
        for key, found in (('neck.num_levels',
                            getattr(self.neck, 'num_levels', levels)),
                           ('len(head.strides)', len(self.head.strides))):
            if levels is not None and found != levels:
                raise ValueError(
                    f'model.{key} is {found}, expected {levels}: '
                    'projection.arch gives one level for the stem and one '
                    'for each branch block')

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Features of the feature grid.

        Args:
            inputs: Normalized frames [B, 1, 3, F, H, W], or features
                [B, C, T'] when there is no backbone (shorter ones are
                padded to ``window_size``).

        Returns:
            Features [B, C, T], float32.

        Raises:
            ValueError: If the shape or the channels do not fit.
        """
        if self.backbone is not None:
            feats = self.encoder(self.backbone, inputs)
        elif inputs.dim() == 3:
            missing = max(self.window_size - inputs.size(-1), 0)
            feats = F.pad(inputs.float(), (0, missing))
        else:
            raise ValueError(
                f'inputs have shape {tuple(inputs.shape)}, expected features '
                '[B, C, T]; for frames set model.backbone')
        expected = getattr(self.projection, 'in_channels', feats.size(1))
        if feats.size(1) != expected:
            raise ValueError(f'model.projection.in_channels={expected}, but '
                             f'the features have {feats.size(1)} channels')
        return feats

    def dense_forward(self,
                      inputs: Tensor,
                      data_samples: Optional[list] = None
                      ) -> DensePredictions:
        """From inputs to raw predictions.

        Args:
            inputs: As in :meth:`extract_feat`.
            data_samples: Samples with the number of real steps,
                ``valid_steps``; without them every step is real.

        Returns:
            Predictions per level.
        """
        feats = self.extract_feat(inputs)
        feats, masks = self.projection(feats, valid_mask(feats, data_samples))
        if self.neck is not None:
            feats, masks = self.neck(feats, masks)
        return self.head(feats, masks)

    def forward(
        self,
        inputs: Union[Tensor, List[Tensor]],
        data_samples: Optional[list] = None,
        mode: str = 'tensor'
    ) -> Union[Dict[str, Tensor], list, DensePredictions]:
        """Run the localizer.

        Args:
            inputs: As in :meth:`extract_feat`, or a list of samples.
            data_samples: One ``ActionDataSample`` per window; needed for
                ``'loss'`` (with ``gt_instances``) and ``'predict'``.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'``.

        Returns:
            ``'loss'``: dict of losses; ``'predict'``: the samples with
            ``pred_instances``; ``'tensor'``: :class:`DensePredictions`.

        Raises:
            ValueError: If the mode is unknown or the samples are missing.
        """
        require_choice('mode', mode, ('loss', 'predict', 'tensor'))
        if mode != 'tensor' and data_samples is None:
            raise ValueError(f'mode={mode!r} needs data_samples')
        if isinstance(inputs, (list, tuple)):
            inputs = torch.stack(list(inputs))
        preds = self.dense_forward(inputs, data_samples)
        if mode == 'loss':
            return self.head.loss(preds, data_samples)
        if mode == 'predict':
            return self.add_predictions(preds, data_samples)
        return preds

    def add_predictions(self, preds: DensePredictions,
                        data_samples: list) -> list:
        """Detections of each window, before any suppression.

        Args:
            preds: Predictions per level.
            data_samples: Samples with the metainfo that
                :mod:`~mmblockdrop.structures.time_grid` reads.

        Returns:
            The samples; ``pred_instances`` holds ``segments`` [N, 2] in
            seconds within the video, ``scores`` [N] in descending order and
            ``labels`` [N].
        """
        segments, scores = self.head.decode(preds)
        scores = scores * torch.cat(preds.masks, dim=-1).unsqueeze(-1)
        scores = scores.flatten(1)
        topk = min(self.test_cfg['pre_nms_topk'], scores.size(1))
        scores, index = scores.topk(topk)
        point = index.div(self.head.num_classes, rounding_mode='floor')
        labels = index % self.head.num_classes
        counts = (scores > self.test_cfg['score_thr']).sum(1).tolist()
        for i, (sample, count) in enumerate(zip(data_samples, counts)):
            chosen = segments[i, point[i, :count]]
            sample.pred_instances = InstanceData(
                segments=steps_to_seconds(chosen, sample.metainfo),
                scores=scores[i, :count],
                labels=labels[i, :count])
        return data_samples


def valid_mask(feats: Tensor, data_samples: Optional[list]) -> Tensor:
    """Steps that hold real video.

    Args:
        feats: Features [B, C, T].
        data_samples: Samples; ``valid_steps`` in the metainfo is the number
            of real steps, T where it is not given.

    Returns:
        bool [B, T].
    """
    length = feats.size(-1)
    if data_samples is None:
        return feats.new_ones((feats.size(0), length), dtype=torch.bool)
    valid = [sample.get('valid_steps', length) for sample in data_samples]
    step = torch.arange(length, device=feats.device)
    return step < torch.tensor(valid, device=feats.device).unsqueeze(1)

"""An encoder of clips in front of an unchanged localizer."""
import copy
from typing import Any, Dict, List, Optional, Union

from mmblockdrop.backbones.base import VideoEncoder, resample
from mmblockdrop.localizers.actionformer.localizer import ActionFormer
from mmblockdrop.localizers.mmaction2.proposals import (ProposalFile,
                                                        add_proposals,
                                                        is_window,
                                                        to_proposal_sample)
from mmblockdrop.registry import MODELS
from mmblockdrop.structures.time_grid import seconds_to_steps

import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

#: Where localizers keep the number of steps they work on, and the channels
#: they expect.
SIZE_KEYS = ('temporal_dim', 'window_size', 'tscale')
WIDTH_KEYS = ('feat_dim', 'tem_feat_dim')


@MODELS.register_module()
class EndToEndLocalizer(BaseModel):
    """Frames to features to any localizer of mmaction2, in one model.

    The encoder turns the clips of a window into features, which are
    resampled to the steps the localizer works on. The localizer is built
    from its own config and is not changed: to BMN, TEM or TCANet a window
    looks like a video, see :mod:`~mmblockdrop.localizers.mmaction2.proposals`.
    Samples of other data sets than ``UntrimmedVideoDataset`` reach the
    localizer as they are, and so do its predictions for them the caller.

    Args:
        localizer: Config of a localizer that takes features ``[C, T]``: BMN,
            TEM, TCANet, ``mmblockdrop.ActionFormer`` without backbone, or
            another that knows the modes of mmaction2.
        backbone: Config of the encoder, as of ``mmblockdrop.ActionFormer``;
            None if the inputs are features ``[B, C, T]``.
        clip_frames: Frames per clip.
        frame_wise: Whether the encoder takes images ``[N, 3, H, W]``; it
            then sees every frame by itself.
        temporal_size: Steps of the localizer. Defaults to ``temporal_dim``
            or ``window_size`` of its config.
        clip_chunk: Clips the encoder sees at once where no gradients are
            computed, None for all.
        pooling: See ``mmblockdrop.ActionFormer``.
        class_head: Config of a head that gives proposals their classes, such
            as ``mmblockdrop.SnippetClassHead``. Defaults to None.
        proposals: JSON file of the proposals that TCANet refines, see
            :class:`~mmblockdrop.localizers.mmaction2.proposals.ProposalFile`.
        data_preprocessor: Config of the preprocessor.
        init_cfg: MMEngine's initialization config.

    Raises:
        ValueError: ``temporal_size`` is not known.
    """

    def __init__(self,
                 localizer: dict,
                 backbone: Optional[dict] = None,
                 clip_frames: int = 16,
                 frame_wise: bool = False,
                 temporal_size: Optional[int] = None,
                 clip_chunk: Optional[int] = None,
                 pooling: str = 'mean',
                 class_head: Optional[dict] = None,
                 proposals: Optional[str] = None,
                 data_preprocessor: Union[dict, nn.Module, None] = None,
                 init_cfg: Union[dict, List[dict], None] = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone) if backbone else None
        self.localizer = MODELS.build(copy.deepcopy(localizer))
        self.class_head = MODELS.build(class_head) if class_head else None
        self.temporal_size = temporal_size or _known_size(
            self.localizer, localizer)
        self.encoder = VideoEncoder(self.temporal_size, clip_frames,
                                    clip_chunk, pooling, frame_wise)
        self.width = {
            key: localizer[key]
            for key in WIDTH_KEYS if key in localizer
        }
        self.proposals = None if proposals is None else ProposalFile(proposals)

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Features of the localizer's steps.

        Args:
            inputs: Normalized frames ``[B, 1, 3, F, H, W]``, or features
                ``[B, C, T']`` when there is no backbone.

        Returns:
            Features ``[B, C, temporal_size]``, float32.

        Raises:
            ValueError: If the shape or the channels do not fit.
        """
        if self.backbone is not None:
            feats = self.encoder(self.backbone, inputs)
        elif inputs.dim() == 3:
            feats = resample(inputs.float(), self.temporal_size)
        else:
            raise ValueError(
                f'inputs have shape {tuple(inputs.shape)}, expected features '
                '[B, C, T]; for frames set model.backbone')
        for key, width in self.width.items():
            if feats.size(1) != width:
                raise ValueError(
                    f'model.localizer.{key}={width}, but the features have '
                    f'{feats.size(1)} channels')
        return feats

    def forward(self,
                inputs: Union[Tensor, List[Tensor]],
                data_samples: Optional[list] = None,
                mode: str = 'tensor') -> Any:
        """Run encoder and localizer.

        Args:
            inputs: As in :meth:`extract_feat`, or a list of samples.
            data_samples: One sample per window; needed for 'loss' and
                'predict'.
            mode: 'loss', 'predict' or 'tensor'.

        Returns:
            'loss': dict of losses, the localizer's and ``loss_class`` if
            there is a class head; 'predict': the samples with
            ``pred_instances`` (``curves`` for TEM); 'tensor': what the
            localizer returns.
        """
        if isinstance(inputs, (list, tuple)):
            inputs = torch.stack(list(inputs))
        feats = self.extract_feat(inputs)
        if mode == 'tensor':
            if self.class_head is not None:
                self.class_head(feats)
            return self._localize(feats, data_samples, mode)
        if mode == 'loss':
            return self.loss(feats, data_samples)
        return self.predict(feats, data_samples)

    def loss(self, feats: Tensor, data_samples: list) -> Dict[str, Tensor]:
        """Losses of the localizer and of the class head.

        Args:
            feats: Features ``[B, C, T]``.
            data_samples: Samples with ground truth.

        Returns:
            Losses. A batch of windows without any action teaches a proposal
            localizer nothing: its loss is zero.
        """
        samples = self.read(data_samples)
        if samples is not data_samples and not any(
                len(s.gt_instances.segments) for s in data_samples):
            out = self._localize(feats, samples, 'tensor')
            losses = dict(loss=sum(x.sum() * 0 for x in _tensors(out)))
        else:
            losses = dict(self._localize(feats, samples, 'loss'))
        if self.class_head is not None:
            scales = [self._scale(sample) for sample in data_samples]
            truth = [sample.gt_instances for sample in data_samples]
            losses.update(
                self.class_head.loss(
                    self.class_head(feats),
                    [gt.segments * x for gt, x in zip(truth, scales)],
                    [gt.labels for gt in truth],
                    valid_mask(feats, data_samples)))
        return losses

    def predict(self, feats: Tensor, data_samples: list) -> list:
        """Detections of each window, before windows are merged.

        Args:
            feats: Features ``[B, C, T]``.
            data_samples: One sample per window.

        Returns:
            The samples, see :meth:`forward`.
        """
        samples = self.read(data_samples)
        if isinstance(self.localizer, ActionFormer):
            results = self._localize(feats, samples, 'predict')
        else:  # BMN and its kind look at the first sample of a batch only
            results = [
                self._localize(feats[i:i + 1], [sample], 'predict')[0]
                for i, sample in enumerate(samples)
            ]
        if samples is data_samples:
            return results
        results = [
            add_proposals(sample, output)
            for sample, output in zip(data_samples, results)
        ]
        if self.class_head is not None:
            for logits, sample in zip(self.class_head(feats), results):
                self._classify(logits, sample)
        return results

    def read(self, data_samples: list) -> list:
        """Samples in the form that the localizer reads.

        Args:
            data_samples: Samples of any data set.

        Returns:
            New samples for windows in front of a proposal localizer, else the
            same list.
        """
        if isinstance(self.localizer, ActionFormer) or not all(
                is_window(sample) for sample in data_samples):
            return data_samples
        interval = getattr(self.localizer, 'feature_extraction_interval', 1)
        return [
            to_proposal_sample(
                sample, interval, self.proposals
                and self.proposals.of_window(sample))
            for sample in data_samples
        ]

    def _scale(self, sample: Any) -> float:
        """Steps of the localizer per step of the window."""
        return self.temporal_size / sample.get('window_size',
                                               self.temporal_size)

    def _localize(self, feats: Tensor, data_samples: Optional[list],
                  mode: str) -> Any:
        try:
            return self.localizer(list(feats), data_samples, mode=mode)
        except AttributeError as error:
            if 'proposals' not in str(error):
                raise
            raise ValueError(
                f'{type(self.localizer).__name__} refines proposals, and the '
                'samples have none: set model.proposals to a file of them'
            ) from error

    def _classify(self, logits: Tensor, sample: Any) -> None:
        """Replace the proposals of a window by detections with a class."""
        found = sample.pred_instances
        segments = seconds_to_steps(found.segments, sample.metainfo)
        segments = segments * self._scale(sample)
        index, scores, labels = self.class_head.classify(
            logits, segments.to(logits), found.scores.to(logits))
        sample.pred_instances = InstanceData(
            segments=found.segments[index.to(found.segments.device)],
            scores=scores,
            labels=labels)


def valid_mask(feats: Tensor, data_samples: list) -> Tensor:
    """Steps of the localizer that show real video.

    Args:
        feats: Features ``[B, C, T]``.
        data_samples: Samples; ``valid_steps`` of ``window_size`` are real.

    Returns:
        bool ``[B, T]``.
    """
    length = feats.size(-1)
    sizes = [x.get('window_size', length) for x in data_samples]
    share = [x.get('valid_steps', n) / n for x, n in zip(data_samples, sizes)]
    start = torch.arange(length, device=feats.device) / length
    return start < torch.tensor(share, device=feats.device)[:, None]


def _known_size(model: nn.Module, cfg: dict) -> int:
    """Steps that a localizer works on, by its config or itself."""
    for key in SIZE_KEYS:
        size = cfg.get(key, getattr(model, key, None))
        if size is not None:
            return int(size)
    raise ValueError(
        f'model.localizer of type {cfg.get("type")!r} names none of '
        f'{SIZE_KEYS}: set model.temporal_size to the steps it works on')


def _tensors(outputs: Any) -> List[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [x for part in outputs for x in _tensors(part)]

"""Encoders of the comparison: cut, repaired, aligned, and their features."""
import copy
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from mmblockdrop.compression import (BlockStack, LinearRepair, add_lora,
                                     merge_lora)
from mmblockdrop.distillation import TeacherStudentWrapper
from mmblockdrop.registry import MODELS
from mmblockdrop.scorers import FeatureErrorScorer
from mmblockdrop.scorers.base import ScoringContext
from mmblockdrop.utils.checkpoint import read_checkpoint
from mmblockdrop.utils.io import whole_file
from mmblockdrop.utils.video import Video, find_media

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmcv import imresize
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

#: Every so many frames of a video are used.
STRIDE = 2
#: Frames of one sample of the calibration.
FRAMES = 24
#: Images that are encoded at once.
CHUNK = 48
#: Whether matrix products of encoders are in bfloat16.
MIXED = True


def precision() -> AbstractContextManager:
    """Matrix products of encoders in bfloat16, the stream in float32."""
    return torch.autocast('cpu', torch.bfloat16, enabled=MIXED)


@MODELS.register_module()
class FrameFeatures(BaseModel):
    """An encoder by itself, where a localizer would stand.

    Args:
        backbone: Config of a video encoder.
        data_preprocessor: Config of the preprocessor.
    """

    def __init__(self, backbone: dict, data_preprocessor: dict) -> None:
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)

    def forward(self,
                inputs: Tensor,
                data_samples: Any = None,
                mode: str = 'tensor') -> Tensor:
        """Encode windows [B, 1, 3, F, H, W].

        Returns:
            [B, C, F, h, w].
        """
        return self.backbone(inputs.squeeze(1))


class Frames:
    """Frames of videos, small, on disk.

    Args:
        videos: Folder of the videos.
        folder: Where the arrays go, uint8 [T, 3, size, size].
        size: Height and width in pixels.
    """

    def __init__(self, videos: Path, folder: Path, size: int) -> None:
        self.videos, self.folder, self.size = videos, folder, size

    def __getitem__(self, name: str) -> np.ndarray:
        path = self.folder / f'{name}.npy'
        if not path.exists():
            found = find_media(str(self.videos), name)
            if found is None:
                raise FileNotFoundError(f'no video {name!r} in {self.videos}')
            video = Video(found)
            indices = np.arange(0, len(video), STRIDE)
            frames = np.concatenate([[
                imresize(frame, (self.size, self.size)).transpose(2, 0, 1)
                for frame in video.read(part)
            ] for part in np.array_split(indices, -(-len(indices) // 200))])
            save(path, frames)
        return np.load(path, mmap_mode='r')


class Samples(Dataset):
    """Samples of frames that are evenly spread over a video.

    Args:
        frames: Frames by video.
        names: Videos, one for each sample.
        starts: Where in the video each begins, in shares of the distance
            between two of its frames.
    """

    def __init__(self, frames: Frames, names: Sequence[str],
                 starts: Sequence[float]) -> None:
        self.frames, self.names, self.starts = frames, names, starts

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Dict[str, Any]:
        frames = self.frames[self.names[index]]
        places = (np.arange(FRAMES) + self.starts[index]) * len(
            frames) / FRAMES
        chosen = torch.from_numpy(frames[places.astype(int)])
        return dict(
            inputs=chosen.transpose(0, 1)[None],
            data_samples=ActionDataSample())


def sample_loader(frames: Frames, fitted: Sequence[str], held: Sequence[str],
                  batches: int) -> DataLoader:
    """Batches of one sample, every fifth of a video that is held out.

    Args:
        frames: Frames by video.
        fitted: Videos to calibrate on.
        held: Videos that are held out; none if empty.
        batches: How many.

    Returns:
        The loader.
    """
    names, starts, counts = [], [], {}
    for index in range(batches):
        from_held = held and index % 5 == 4
        pool = held if from_held else fitted
        place = counts.get(bool(from_held), 0)
        counts[bool(from_held)] = place + 1
        names.append(pool[place % len(pool)])
        starts.append((place // len(pool) * 0.37 + 0.1) % 1)
    return DataLoader(
        Samples(frames, names, starts), 1, collate_fn=pseudo_collate)


def save(path: Path, array: np.ndarray) -> None:
    """Write an array, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        with open(partial, 'wb') as file:
            np.save(file, array)


def run(model: nn.Module, batch: Dict[str, Any]) -> Any:
    """Run an encoder on a batch of the loader."""
    with precision():
        return model(**model.data_preprocessor(batch, False), mode='tensor')


class Encoders:
    """Encoders on disk, by name.

    Args:
        cfg: Config of a localizer; its backbone and preprocessor are used.
        stack: Dotted path of the blocks.
        checkpoint: Weights of the full encoder.
        folder: Where everything goes.
        frames: Frames by video.
        fitted: Videos to calibrate on, without labels.
        held: Videos by whose feature error is chosen.
    """

    def __init__(self, cfg: dict, stack: str, checkpoint: str, folder: Path,
                 frames: Frames, fitted: List[str], held: List[str]) -> None:
        self.model = dict(
            type='mmblockdrop.FrameFeatures',
            backbone=dict(cfg['backbone'], pretrained=checkpoint),
            data_preprocessor=cfg['data_preprocessor'])
        self.stack, self.folder, self.frames = stack, folder, frames
        self.fitted, self.held = fitted, held

    def path(self, name: str) -> Path:
        """File of an encoder."""
        return self.folder / 'encoders' / f'{name}.pth'

    def keep(self, name: str, model: nn.Module, removed: List[int]) -> None:
        """Write an encoder."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path(name)) as partial:
            torch.save(
                dict(state_dict=model.state_dict(), removed=removed), partial)

    def load(self, name: str = 'full') -> nn.Module:
        """Read an encoder, in evaluation mode.

        Args:
            name: Its name.

        Returns:
            The model, blocks removed.
        """
        if name == 'full' and not self.path(name).exists():
            model = MODELS.build(copy.deepcopy(self.model))
            model.init_weights()
            self.keep(name, model, [])
        found = read_checkpoint(self.path(name), 'encoder')
        model = MODELS.build(copy.deepcopy(self.model))
        stack = BlockStack(model, self.stack)
        for block in found['removed']:
            stack.remove(block)
        model.load_state_dict(found['state_dict'])
        model.eval()
        return model

    def removed(self, name: str) -> List[int]:
        """Blocks that an encoder lacks, in the order of their removal."""
        return read_checkpoint(self.path(name), 'encoder')['removed']

    def pair(self) -> TeacherStudentWrapper:
        """The full encoder twice, as teacher and student."""
        self.load()
        pair = TeacherStudentWrapper(
            self.model, str(self.path('full')), alignments={})
        pair.init_weights()
        pair.uncompressed()
        return pair.eval()

    def loader(self, batches: int, held: bool = True) -> DataLoader:
        """Calibration samples; ``held``: every fifth of other videos."""
        return sample_loader(self.frames, self.fitted,
                             self.held if held else [], batches)

    # ------------------------------------------------------------- features
    @torch.no_grad()
    def features(self, name: str, videos: Sequence[str]) -> Path:
        """Features of videos, float16 [T, C], unless they are there.

        Args:
            name: The encoder.
            videos: The videos.

        Returns:
            The folder.
        """
        folder = self.folder / 'features' / name
        if name.startswith('mapped-'):
            return self._mapped_features(name, videos)
        missing = [v for v in videos if not (folder / f'{v}.npy').exists()]
        if missing:
            model = self.load(name)
            began = time.process_time()
            count = 0
            for video in missing:
                frames = self.frames[video]
                parts = [
                    run(model, self._batch(frames[i:i + CHUNK]))
                    for i in range(0, len(frames), CHUNK)
                ]
                feats = torch.cat(parts, 2).mean((-2, -1))[0].T
                save(folder / f'{video}.npy', feats.half().numpy())
                count += len(frames)
            used = (time.process_time() - began) / count
            print(f'{name}: {1e3 * used:.1f} ms a frame', flush=True)
        return folder

    def _mapped_features(self, name: str, videos: Sequence[str]) -> Path:
        """Features of the repaired encoder behind the map of ``name``."""
        folder = self.folder / 'features' / name
        source = self.features(_source(name), videos)
        found = read_checkpoint(self.path(name), 'encoder')
        for video in videos:
            if not (folder / f'{video}.npy').exists():
                feats = torch.from_numpy(np.load(source / f'{video}.npy'))
                feats = feats.double() @ found['weight'] + found['bias']
                save(folder / f'{video}.npy', feats.half().numpy())
        return folder

    def fit_map(self, name: str) -> Dict[str, Any]:
        """Fit a linear map of an encoder's features to the full one's.

        Ridge regression on the features of the calibration videos; the ridge
        is the one with the least error on the held-out videos.

        Args:
            name: 'mapped-<blocks>', of the encoder 'repaired-<blocks>'.

        Returns:
            Ridge and error.
        """
        x, y = (self._all(n, self.fitted) for n in (_source(name), 'full'))
        held, wanted = (self._all(n, self.held)
                        for n in (_source(name), 'full'))
        mean, target = x.mean(0), y.mean(0)
        square, cross = (x - mean).T @ (x - mean), (x - mean).T @ (y - target)
        best: Dict[str, Any] = {}
        for ridge in (1e-4, 1e-3, 1e-2, 1e-1, 1.):
            diagonal = ridge * np.trace(square) / len(square)
            weight = np.linalg.solve(
                square + diagonal * np.eye(len(square)), cross)
            bias = target - mean @ weight
            error = feature_error(held @ weight + bias, wanted)['all']
            if not best or error < best['error']:
                best = dict(ridge=ridge, error=error, weight=weight, bias=bias)
        with whole_file(self.path(name)) as partial:
            torch.save(
                dict(
                    removed=self.removed(_source(name)),
                    weight=torch.from_numpy(best.pop('weight')),
                    bias=torch.from_numpy(best.pop('bias'))), partial)
        return best

    def _all(self, name: str, videos: Sequence[str]) -> np.ndarray:
        """Features of videos one behind the other, float64 [T, C]."""
        folder = self.features(name, videos)
        return np.concatenate([
            np.load(folder / f'{v}.npy').astype(float) for v in videos])

    @staticmethod
    def _batch(frames: np.ndarray) -> Dict[str, Any]:
        inputs = torch.from_numpy(np.array(frames)).transpose(0, 1)[None]
        return dict(inputs=[inputs], data_samples=[ActionDataSample()])

    def error(self, name: str) -> Dict[str, float]:
        """Error of features on the held-out videos against the full one's.

        Args:
            name: The encoder; its features of these videos are read or made.

        Returns:
            Shares of the variance of the full encoder's features, channel by
            channel summed: of both halves, of the class token and of the mean
            of the patch tokens.
        """
        return feature_error(
            self._all(name, self.held), self._all('full', self.held))


def _source(name: str) -> str:
    """Encoder behind whose features a map stands."""
    return name.replace('mapped-', 'repaired-')


def feature_error(ours: np.ndarray, full: np.ndarray) -> Dict[str, float]:
    """Squared error of features as shares of the variance.

    Args:
        ours: Features [T, C].
        full: Those of the full encoder.

    Returns:
        'all', 'class' (first half of the channels) and 'patches'.
    """
    gap = np.square(ours - full).mean(0)
    spread = full.var(0)
    half = len(gap) // 2
    return dict(
        all=gap.sum() / spread.sum(),
        **{'class': gap[:half].sum() / spread[:half].sum()},
        patches=gap[half:].sum() / spread[half:].sum())


# ------------------------------------------------------------- compression
def choose(encoders: Encoders, blocks: int, batches: int,
           log: Any) -> None:
    """Drop and repair one block after the other; nothing is trained.

    The block is chosen by :class:`FeatureErrorScorer`, the one in front
    repaired. Finished rounds are read.

    Args:
        encoders: The encoders; each round is kept as ``fold-<blocks left>``.
        blocks: Blocks that remain.
        batches: Samples of 24 frames; half of them for the scores.
        log: Takes a line for each round.
    """
    pair = encoders.pair()
    student, teacher = pair.student, pair.uncompressed()
    structure = BlockStack(student, encoders.stack)
    calibration = list(encoders.loader(batches, held=False))
    structure.probe(lambda: run(student, calibration[0]))
    depth, removed = len(structure), []
    scorer, repair = FeatureErrorScorer(), LinearRepair(refit=False)
    while len(structure.remaining) > blocks:
        name = f'fold-{depth - len(removed) - 1}'
        if encoders.path(name).exists():
            removed = encoders.removed(name)
            structure.remove(removed[-1])
            student.load_state_dict(encoders.load(name).state_dict())
            continue
        began = time.process_time()
        context = ScoringContext(
            pair, structure, structure.candidates(),
            encoders.loader(batches // 2), new_evaluator=None)
        with precision():
            scores = scorer(context)
        block = scorer.best(scores)[0]
        scored = time.process_time() - began
        structure.remove(block)
        removed = [*removed, block]
        entries = repair(student, teacher, structure, [block], calibration,
                         run)
        encoders.keep(name, student, removed)
        log(f'round {name}', block=block, scores=scores, repair=entries,
            seconds_scoring=scored,
            seconds_repair=time.process_time() - began - scored)


def refitted(encoders: Encoders, start: str, batches: int,
             both_layers: bool = False
             ) -> Tuple[nn.Module, List[Dict[str, Any]]]:
    """Fit all blocks behind the gaps, too.

    Args:
        encoders: The encoders.
        start: Encoder to begin with.
        batches: Samples of 24 frames.
        both_layers: Fit the projection of the attention, too.

    Returns:
        The encoder and what was fitted.
    """
    student, teacher = encoders.load(start), encoders.load()
    structure = BlockStack(student, encoders.stack)
    calibration = list(encoders.loader(batches, held=False))
    entries = LinearRepair(both_layers=both_layers)(
        student, teacher, structure, encoders.removed(start), calibration, run)
    return student, entries


def cut(encoders: Encoders, removed: Sequence[int]) -> nn.Module:
    """The full encoder without some blocks."""
    model = encoders.load()
    structure = BlockStack(model, encoders.stack)
    for block in removed:
        structure.remove(block)
    return model


def first_blocks(encoders: Encoders, blocks: int,
                 batches: int) -> Tuple[nn.Module, List[int]]:
    """The first blocks, the last of them repaired.

    Args:
        encoders: The encoders.
        blocks: Blocks that remain.
        batches: Samples of 24 frames.

    Returns:
        The encoder, and what it lacks.
    """
    teacher = encoders.load()
    depth = len(BlockStack(teacher, encoders.stack))
    removed = list(range(blocks, depth))
    student = cut(encoders, removed)
    LinearRepair(refit=False)(student, teacher,
                              BlockStack(student, encoders.stack), removed,
                              list(encoders.loader(batches, held=False)), run)
    return student, removed


def align(encoders: Encoders, start: str, steps: int, batch_size: int = 16,
          rank: int = 16, lr: float = 1e-3, check: int = 100,
          log: Any = print) -> nn.Module:
    """Train LoRA so that the tokens agree with the full encoder's.

    The state with the least error on the held-out videos is kept. No label is
    used.

    Args:
        encoders: The encoders.
        start: Encoder to begin with.
        steps: Optimizer steps.
        batch_size: Frames of a step.
        rank: Rank of the update.
        lr: Peak learning rate of one cycle.
        check: Steps between two looks at the error.
        log: Takes the errors.

    Returns:
        The encoder, LoRA merged.
    """
    student, teacher = encoders.load(start), encoders.load()
    torch.manual_seed(0)
    student.requires_grad_(False)
    blocks = BlockStack(student, encoders.stack)
    add_lora([blocks[i] for i in blocks.remaining], rank)
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr, weight_decay=0.)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=0.1)
    held = [b for i, b in enumerate(encoders.loader(40)) if i % 5 == 4]
    wanted = [tokens(teacher, b) for b in held]
    spread = sum((w - w.mean((0, 1))).square().mean() for w in wanted)

    def error() -> float:
        with torch.no_grad():
            gaps = sum((tokens(student, b) - w).square().mean()
                       for b, w in zip(held, wanted))
        return float(gaps / spread)

    best, state = error(), None
    history = [best]
    for step, batch in enumerate(
            random_frames(encoders, steps, batch_size), 1):
        target = tokens(teacher, batch)
        gap = (tokens(student, batch, True) - target).square().mean()
        loss = gap / (target - target.mean((0, 1))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.)
        optimizer.step()
        schedule.step()
        if step % check == 0:
            history.append(error())
            print(f'{start} step {step}: {history[-1]:.4f}', flush=True)
            if history[-1] < best:
                best, state = history[-1], copy.deepcopy(student.state_dict())
    if state is not None:
        student.load_state_dict(state)
    merge_lora(student)
    log(f'align {start}', errors=history, steps=steps)
    return student


def tokens(model: nn.Module, batch: Dict[str, Any],
           gradients: bool = False) -> Tensor:
    """Last tokens [images, N, C] of the image encoder, float32."""
    inputs = model.data_preprocessor(batch, False)['inputs'].squeeze(1)
    images = inputs.transpose(1, 2).flatten(0, 1)
    with precision(), torch.set_grad_enabled(gradients):
        found = model.backbone.encoder(images)
    return found[-1].float().flatten(2) if found[-1].dim() == 3 else (
        found[-1].float().flatten(2).transpose(1, 2))


def random_frames(encoders: Encoders, count: int,
                  size: int) -> Iterator[Dict[str, Any]]:
    """Batches of frames of the calibration videos, drawn by a fixed seed."""
    generator = np.random.default_rng(0)
    arrays = [encoders.frames[v] for v in encoders.fitted]
    for _ in range(count):
        places = generator.integers(len(arrays), size=size)
        yield Encoders._batch(
            np.stack([arrays[i][generator.integers(len(arrays[i]))]
                      for i in places]))

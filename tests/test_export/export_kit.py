"""Compressed checkpoints of toy size, and a process without mmblockdrop."""
import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from mmblockdrop.compression import BlockStack, HalfBlocks, add_lora
from mmblockdrop.registry import MODELS

import torch
import toy
from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[2]
RECOGNIZER = dict(
    type='Recognizer3D',
    backbone=dict(
        type='VisionTransformer', img_size=16, patch_size=8, embed_dims=16,
        depth=4, num_heads=2, num_frames=4),
    cls_head=dict(type='TimeSformerHead', num_classes=3, in_channels=16),
    data_preprocessor=dict(
        type='ActionDataPreprocessor', mean=[120.] * 3, std=[60.] * 3,
        format_shape='NCTHW'))
BMN = dict(
    type='BMN', temporal_dim=8, boundary_ratio=0.5, num_samples=4,
    num_samples_per_bin=2, feat_dim=8, hidden_dim_1d=8, hidden_dim_2d=4,
    hidden_dim_3d=8, soft_nms_alpha=0.4, soft_nms_low_threshold=0.5,
    soft_nms_high_threshold=0.9, post_process_top_k=10)

#: What mmaction2's own wheel needs before it can be imported; no line of it
#: is ours.
ALONE = '''
import sys, types, warnings
warnings.simplefilter('ignore')
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'mmblockdrop':
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
def empty(name, **content):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(content)
drn = 'mmaction.models.localizers.drn'
empty(drn, __path__=[])
empty(drn + '.drn', DRN=object)
empty('mmaction.models.multimodal.vindlu', __all__=[])
import torch
try:
    import torchvision
except RuntimeError:
    library = torch.library.Library('torchvision', 'FRAGMENT')
    for name in ('nms', 'qnms'):
        library.define(name + '(Tensor dets, Tensor scores, '
                       'float iou_threshold) -> Tensor')
    for name in [n for n in sys.modules if n.startswith('torchvision')]:
        del sys.modules[name]
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
import mmaction.models
from mmaction.registry import MODELS
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    init_default_scope('mmaction')
    name = 'encoder' if folder.endswith('toy') else 'model'
    cfg = Config.fromfile(f'{folder}/{name}.py')
    model = MODELS.build(cfg.model)
    load_checkpoint(model, f'{folder}/{name}.pth', strict=True)
    model.eval()
    inputs = torch.load(f'{folder}/inputs.pt')
    stage = dict(stage='head') if hasattr(model, 'cls_head') else {}
    with torch.no_grad():
        out = model(inputs, None, mode='tensor', **stage)
    torch.save(out, f'{folder}/alone.pt')
assert not any(m.startswith('mmblockdrop') for m in sys.modules)
print('done')
'''


def without_mmblockdrop(*folders: Path) -> None:
    """Load exported files where mmblockdrop cannot be imported.

    Args:
        folders: Each holds the files and ``inputs.pt``; gets ``alone.pt``.
    """
    done = subprocess.run(
        [sys.executable, '-c', ALONE, *map(str, folders)],
        cwd=folders[0],
        env=dict(
            {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
            OMP_NUM_THREADS='1'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True)
    assert done.stdout.splitlines()[-1] == 'done', done.stdout


def save(folder: Path,
         model_cfg: Dict[str, Any],
         drop: List[Any],
         stack: str = 'backbone.blocks',
         lora: Optional[dict] = None) -> List[str]:
    """Write the config and the checkpoint of a compressed toy model.

    Args:
        folder: Where they go.
        model_cfg: Uncompressed model.
        drop: Blocks, or halves of blocks, that are removed.
        stack: Their path.
        lora: Arguments of ``add_lora``; the checkpoint then holds LoRA.

    Returns:
        Paths of config and checkpoint.
    """
    init_default_scope('mmaction')
    torch.manual_seed(1)
    model = MODELS.build(copy.deepcopy(model_cfg))
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    meta: Dict[str, Any] = {}
    if drop:
        kind = BlockStack if isinstance(drop[0], int) else HalfBlocks
        structure = kind(model, stack)
        meta['blockdrop'] = dict(
            structure.record(), version=2, start_dropped=drop, rounds=[])
        for part in drop:
            structure.remove(part)
    if lora:
        add_lora(model.get_submodule(stack), **lora)
        meta['blockdrop']['lora'] = lora
        for name, parameter in model.named_parameters():
            if 'lora_' in name:
                parameter.data.normal_(0, 0.2)
    cfg = toy.config(folder / 'work', model=model_cfg)
    cfg.custom_hooks = [dict(type='mmblockdrop.BlockDropHook')]
    folder.mkdir(parents=True, exist_ok=True)
    Config(cfg.to_dict()).dump(str(folder / 'config.py'))
    torch.save(dict(meta=meta, state_dict=model.state_dict()),
               folder / 'model_before.pth')
    return [str(folder / 'config.py'), str(folder / 'model_before.pth')]

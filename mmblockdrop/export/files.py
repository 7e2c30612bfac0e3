"""Write an exported model: config, checkpoint, and what was done."""
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from mmblockdrop.utils.io import whole_file
from mmblockdrop.version import __version__

import torch
from mmengine.config import Config
from torch import Tensor, nn

from .inputs import difference
from .plain import (is_plain, our_types, standalone, to_plain_types,
                    with_mmaction_types)
from .renumber import ExportError, renumber


def export_model(model: nn.Module,
                 cfg: Config,
                 model_cfg: dict,
                 inputs: Tensor,
                 out_dir: Union[str, Path],
                 source: Optional[str] = None,
                 tolerance: float = 1e-5,
                 onnx: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    """Write a model as files that stand for themselves.

    ``model.py`` and ``model.pth`` are the whole model. Where it needs
    mmblockdrop and its encoder does not, ``encoder.py`` and ``encoder.pth``
    are the encoder as a ``Recognizer3D`` without head. ``export.json`` says
    what was done.

    Args:
        model: Compressed model with LoRA merged, on the CPU, as
            :func:`mmblockdrop.apis.init_localizer` gives it.
        cfg: Config that it was built from.
        model_cfg: Its model, uncompressed.
        inputs: What the model is run on before and after.
        out_dir: Folder for the files, made if need be.
        source: Checkpoint the model came from, for the record.
        tolerance: Largest difference of the outputs allowed.
        onnx: What :func:`to_onnx` found, for the record.

    Returns:
        Content of ``export.json``.

    Raises:
        ExportError: No config builds the shorter model, or its outputs are
            others. Nothing has been written then.
    """
    plain_cfg = with_mmaction_types(to_plain_types(model_cfg))
    short, short_cfg, stacks = renumber(model, plain_cfg, inputs, tolerance)
    out = Path(out_dir)
    meta = dict(
        dataset_meta=dict(getattr(model, 'dataset_meta', None) or {}),
        exported=dict(
            by=f'mmblockdrop {__version__}',
            source=source,
            kept={s.path: s.kept for s in stacks}))
    whole, left_out = standalone(cfg, short_cfg)
    files = [_write(out, 'model', whole, short.state_dict(), meta)]
    needs = sorted(
        {f'{p or "model"}: {t}' for p, t in our_types(short_cfg)})
    report = dict(
        source=source,
        stacks=[
            dict(path=s.path, kept=s.kept, dropped=s.dropped) for s in stacks
        ],
        params=sum(p.numel() for p in short.parameters()),
        needs_mmblockdrop=needs,
        left_out=left_out,
        max_difference=difference(model, short, inputs),
        inputs=list(inputs.shape))
    encoder = short_cfg.get('backbone')
    if needs and encoder and is_plain(encoder):
        files.append(_write_encoder(out, cfg, short, short_cfg, meta))
    report['files'] = {
        name: (out / name).stat().st_size
        for pair in files for name in pair
    }
    if onnx is not None:
        report['onnx'] = onnx
    _replace(out / 'export.json',
             lambda p: p.write_text(json.dumps(report, indent=2) + '\n'))
    return report


def _write_encoder(out: Path, cfg: Config, model: nn.Module, model_cfg: dict,
                   meta: dict) -> List[str]:
    """The encoder as a recognizer without head."""
    recognizer = dict(
        type='mmaction.Recognizer3D', backbone=model_cfg['backbone'])
    if is_plain(model_cfg.get('data_preprocessor')):
        recognizer['data_preprocessor'] = model_cfg.get('data_preprocessor')
    content = Config({
        'default_scope': cfg.get('default_scope') or 'mmaction',
        'model': recognizer
    })
    state = {
        k: v for k, v in model.state_dict().items()
        if k.startswith('backbone.')
    }
    return _write(out, 'encoder', content, state, meta)


def _write(out: Path, name: str, cfg: Config, state: Dict[str, Tensor],
           meta: dict) -> List[str]:
    """Write a config and a checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    content = dict(
        meta=meta, state_dict={k: v.contiguous() for k, v in state.items()})
    _replace(out / f'{name}.pth', lambda p: torch.save(content, p))
    _replace(out / f'{name}.py', lambda p: cfg.dump(str(p)))
    return [f'{name}.py', f'{name}.pth']


def _replace(path: Path, write: Any) -> None:
    """Write under a temporary name and rename."""
    try:
        with whole_file(path, f'.tmp{path.suffix}') as temporary:
            write(temporary)
    except OSError as error:
        raise ExportError(f'{path} cannot be written: {error}') from error

"""Files that stand for themselves: config, checkpoint, and what was done."""
import copy
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from mmblockdrop.compression.spec import spec_of
from mmblockdrop.utils.checkpoint import write_checkpoint
from mmblockdrop.utils.config import plain_config, type_name
from mmblockdrop.utils.io import whole_file
from mmblockdrop.version import __version__

from mmengine.config import Config
from torch import Tensor, nn

from .renumber import removed_halves, renumber
from .runtime import ExportError, difference

OURS = 'mmblockdrop'
#: Our arguments that mmaction2's ``VisionTransformer`` lacks.
EXTRA = ('drop_blocks', 'lora', 'stem', 'shifted_windows', 'with_cp')
#: Parts of a config that test a model.
TESTING = ('val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader',
           'test_cfg', 'test_evaluator')
RUNTIME = ('default_scope', 'custom_imports', 'default_hooks', 'env_cfg',
           'log_processor', 'visualizer', 'vis_backends', 'log_level',
           'randomness')


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
    halves = removed_halves(model)
    folded, plain_cfg = fold_layers(model, plain_config(model_cfg))
    plain_cfg = with_mmaction_types(plain_cfg, bool(halves))
    short, short_cfg, stacks = renumber(folded, plain_cfg, inputs, tolerance)
    out = Path(out_dir)
    dataset_meta = dict(getattr(model, 'dataset_meta', None) or {})
    meta = dict(
        dataset_meta=dataset_meta,
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
        halves=list(halves),
        params=sum(p.numel() for p in short.parameters()),
        needs_mmblockdrop=needs,
        left_out=left_out,
        max_difference=difference(model, short, inputs),
        inputs=list(inputs.shape),
        sample_fps=dataset_meta.get('sample_fps'),
        video_fps=dataset_meta.get('video_fps'))
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


def fold_layers(model: nn.Module, cfg: dict) -> Tuple[nn.Module, dict]:
    """Fold layers into others where the classes of a model say how.

    Args:
        model: Compressed model; not changed.
        cfg: Its config, of plain types; not changed.

    Returns:
        The model and its config after folding.
    """
    specs = {name: spec_of(module) for name, module in model.named_modules()}
    folds = {n: s.fold for n, s in specs.items() if s and s.fold}
    if not folds:
        return model, cfg
    model, cfg = copy.deepcopy(model), copy.deepcopy(cfg)
    for name, fold in folds.items():
        node = cfg
        for part in filter(None, name.split('.')):
            node = node[part]
        for key, value in fold(model.get_submodule(name)).items():
            node[key] = value
            if value is None:
                del node[key]
    return model, cfg


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
    try:
        write_checkpoint(content, out / f'{name}.pth')
    except OSError as error:
        raise ExportError(f'{out / name}.pth cannot be written: '
                          f'{error}') from error
    _replace(out / f'{name}.py', lambda p: cfg.dump(str(p)))
    return [f'{name}.py', f'{name}.pth']


def _replace(path: Path, write: Any) -> None:
    """Write under a temporary name and rename."""
    try:
        with whole_file(path, f'.tmp{path.suffix}') as temporary:
            write(temporary)
    except OSError as error:
        raise ExportError(f'{path} cannot be written: {error}') from error


def summary(report: Dict[str, Any], out_dir: Path) -> str:
    """Say in a few lines what was written.

    Args:
        report: Content of ``export.json``.
        out_dir: Folder of the files.

    Returns:
        The lines.
    """
    lines = [
        f'{s["path"]}: kept {s["kept"]}, dropped {s["dropped"]}'
        for s in report['stacks']
    ]
    if report['halves']:
        lines.append('Halves of blocks removed: ' + ', '.join(report['halves'])
                     + '.')
    lines = lines or ['Nothing was removed.']
    lines.append(f'Outputs differ by {report["max_difference"]:.2g} at most, '
                 f'on random inputs of shape {report["inputs"]}.')
    for name, size in report['files'].items():
        lines.append(f'{out_dir / name} ({size / 1e6:.2f} MB)')
    if report['needs_mmblockdrop']:
        lines.append('model.py needs mmblockdrop, for '
                     + ', '.join(report['needs_mmblockdrop']) + '.')
        if 'encoder.py' in report['files']:
            lines.append('encoder.py does not: it is the encoder alone.')
    else:
        lines.append('Nothing of this needs mmblockdrop.')
    if report['left_out']:
        lines.append('Left out, as they need mmblockdrop: '
                     + ', '.join(report['left_out']) + '.')
    return '\n'.join(lines)


def with_mmaction_types(cfg: Any, halves: bool = False) -> Any:
    """Write ``LoRAViT`` as mmaction2's ``VisionTransformer`` where it is one.

    The two have the same parameters; LoRA is merged and the removed blocks
    are renumbered away by then. With a ``stem``, with windows within its
    clips, or without halves of blocks it is another model.

    Args:
        cfg: Config of a model, of plain types; not changed.
        halves: Whether halves of blocks are removed from the model.

    Returns:
        The config without what the export makes superfluous.
    """
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(with_mmaction_types(v, halves) for v in cfg)
    if not isinstance(cfg, dict):
        return cfg
    cfg = {k: with_mmaction_types(v, halves) for k, v in cfg.items()}
    if type_name(cfg) not in ('LoRAViT', 'SmallViT'):
        return cfg
    for key in ('drop_blocks', 'lora', 'pretrained', 'init_cfg'):
        cfg.pop(key, None)
    if not (halves or cfg.get('stem') or cfg.get('shifted_windows')):
        for key in EXTRA:
            cfg.pop(key, None)
        cfg['type'] = 'mmaction.VisionTransformer'
        cfg.setdefault('return_feat_map', True)
    return cfg


def our_types(cfg: Any, place: str = '') -> Iterator[Tuple[str, str]]:
    """Places in a config that need this project.

    Args:
        cfg: Part of a config.
        place: Its own place, to begin with.

    Yields:
        Place and type.
    """
    if isinstance(cfg, dict):
        kind = cfg.get('type')
        if isinstance(kind, str) and kind.split('.')[0] == OURS:
            yield place, kind
        pairs = list(cfg.items())
    elif isinstance(cfg, (list, tuple)):
        pairs = list(enumerate(cfg))
    else:
        return
    for key, value in pairs:
        yield from our_types(value, f'{place}.{key}'.lstrip('.'))


def is_plain(cfg: Any) -> bool:
    """Whether a part of a config builds without this project.

    Args:
        cfg: Part of a config.

    Returns:
        No type in it is ours.
    """
    return not any(True for _ in our_types(cfg))


def standalone(cfg: Config, model: dict) -> Tuple[Config, List[str]]:
    """Config of a model for testing, without inheritance.

    Args:
        cfg: Config that the model comes from.
        model: Config of the model.

    Returns:
        The config, and the entries of ``cfg`` for testing that were left out
        because they need this project while the model does not.
    """
    plain = is_plain(model)
    content: Dict[str, Any] = {}
    for key in RUNTIME:
        if key in cfg:
            content[key] = plain_config(cfg[key])
    content['default_scope'] = cfg.get('default_scope') or 'mmaction'
    left_out = []
    for stage in ('val', 'test'):
        keys = [k for k in TESTING if k.startswith(stage) and cfg.get(k)
                is not None]
        part = {k: plain_config(cfg[k]) for k in keys}
        if plain and not is_plain(part):
            left_out += keys
        else:
            content.update(part)
    imports = content.pop('custom_imports', None) or {}
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    names = [n for n in names if n.split('.')[0] != OURS]
    if not plain:
        names.insert(0, OURS)
    if names:
        content['custom_imports'] = dict(
            imports=names, allow_failed_imports=False)
    hooks = content.get('default_hooks')
    if plain and hooks and not is_plain(hooks):
        content['default_hooks'] = {
            k: v for k, v in hooks.items() if is_plain(v)
        }
    content['model'] = model
    return Config(content), left_out

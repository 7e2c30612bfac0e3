"""AdaTAD: a frozen video encoder, adapted by small layers across clips."""
from .adapter import TemporalAdapter, adapters_of, fold_adapters
from .encoders import AdaptedEncoder, AdapterViT

__all__ = [
    'AdaptedEncoder', 'AdapterViT', 'TemporalAdapter', 'adapters_of',
    'fold_adapters'
]

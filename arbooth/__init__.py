"""arbooth: personalise a visual autoregressive model with a few photos of one subject.

>>> import arbooth
>>> arbooth.run("finetune", "poodle")  # doctest: +SKIP
"""

from importlib import import_module

__version__ = "0.1.0"

# Name -> module: heavy imports happen when a name is first used.
_PUBLIC = {
    "InputError": "arbooth.errors",
    "Params": "arbooth.params",
    "load_params": "arbooth.params",
    "run": "arbooth.stages",
    "TABLE": "arbooth.graph",
    "Project": "arbooth.project",
    "Painter": "arbooth.painting.painter",
    "load_base": "arbooth.data.bases",
    "fit": "arbooth.method.fit",
    "FitSettings": "arbooth.method.fit",
    "Sampling": "arbooth.model.sampling",
    "Schedule": "arbooth.model.schedule",
    "Transformer": "arbooth.model.transformer",
    "TransformerConfig": "arbooth.model.transformer",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'arbooth' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)

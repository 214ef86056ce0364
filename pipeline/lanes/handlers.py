"""The function of a consumer, found by the name that ``pipeline.toml`` gives it."""

from __future__ import annotations

from importlib import import_module

from pipeline.errors import ConfigurationError
from pipeline.lanes.turn import Handler


def handler_of(path: str, setting: str) -> Handler:
    """The function ``module:function``; ConfigurationError, under the name of the `setting`, says why there is none."""
    module, _, function = path.partition(":")
    try:
        found = getattr(import_module(module), function, None)
    except ImportError as error:
        raise ConfigurationError((f"{setting}: {path} cannot be imported: {error}",)) from error
    if not callable(found):
        raise ConfigurationError((f"{setting}: {module} has no function {function}",))
    handler: Handler = found
    return handler

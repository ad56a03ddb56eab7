"""Turn errors into messages and exit statuses.

0: success; 1: a case failed or a check found a problem; 2: the command could not start or
continue; 130: interrupted. Any other error is a bug and keeps its traceback.
"""

from __future__ import annotations

import sys

from zerocon.core.text import printable_lines

INTERRUPTED = 130
COULD_NOT = 2
# Errors with a message for the user, from modules that are slow to import. A module that is not
# loaded can't have raised one.
_EXPLAINED = {
    "zerocon.backbones.base": ("BackboneError",),
    "zerocon.core.cases": ("CaseError", "DatasetError"),
    "zerocon.core.checks": ("ConfigError",),
    "zerocon.core.records": ("RecordError",),
    "zerocon.runs.processes": ("WorkerError",),
    "zerocon.trackers.base": ("TrackerError",),
    "hydra.errors": ("HydraException",),
    "omegaconf.errors": ("OmegaConfBaseException",),
    "yaml": ("YAMLError",),
    "json": ("JSONDecodeError",),
    "safetensors": ("SafetensorError",),
    "torch": ("OutOfMemoryError",),
}


def status_of_error(error: BaseException, program: str) -> int:
    """Print the error to stderr and return the exit status. Raise unexpected errors again."""
    if isinstance(error, KeyboardInterrupt):
        said = str(error) or "stopped"
        sys.stderr.write(f"\n{program}: {printable_lines(said)}; the same command continues\n")
        return INTERRUPTED
    words = words_of(error)
    if words is None:
        raise error
    sys.stderr.write(f"{program}: {printable_lines(words)}\n")
    return COULD_NOT


def words_of(error: BaseException) -> str | None:
    """The error's message for the user, or None if it is unexpected."""
    if isinstance(error, UnicodeDecodeError):
        return f"a file is not UTF-8 text: {error}"
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, _explained()):
        return str(error) or type(error).__name__
    return None


def _of_the_system(error: OSError) -> str:
    said = error.strerror or str(error) or type(error).__name__
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' and '.join(files)}: {said}" if files else said


def _explained() -> tuple[type[BaseException], ...]:
    loaded = {name: sys.modules[name] for name in _EXPLAINED if name in sys.modules}
    return tuple(
        getattr(module, error)
        for name, module in loaded.items()
        for error in _EXPLAINED[name]
        if hasattr(module, error)  # missing while the module is being imported
    )

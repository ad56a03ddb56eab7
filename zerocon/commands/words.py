"""How a command ends when something is wrong: in words, with the exit status that says so.

0: all well; 1: a case failed, or something is not as it should be; 2: it could not start or go
on; 130: interrupted. What is not explained here is a mistake of ours, and keeps its traceback.
"""

from __future__ import annotations

import sys

from zerocon.core.text import printable_lines

INTERRUPTED = 130
COULD_NOT = 2
# The errors that say in words what is wrong, of modules that are slow to import: one that is not
# loaded raised nothing.
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
    """Say on stderr what went wrong; the exit status. What is not explained is raised again."""
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
    """The error in words, or None if it is not one that explains itself."""
    if isinstance(error, UnicodeDecodeError):
        return f"a file is not UTF-8 text, as it should be: {error}"
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
        if hasattr(module, error)  # not while the module is being imported
    )

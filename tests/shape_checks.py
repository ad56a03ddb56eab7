"""Checks the shapes in annotations at every call in tests.

The modules annotate tensors with jaxtyping (`Float[Tensor, "case token"]`); outside of tests
they are not checked. `conftest.py` installs this before the modules are imported.
"""

from __future__ import annotations

from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

MODULES = (
    "zerocon.core.word_maps",
    "zerocon.losses.cross_attention",
    "zerocon.losses.patch_nce",
)


def checked(function: Any) -> Any:
    """With its annotations checked; a whole number will do for a float.

    Constructors take settings and no tensors; what they say of wrong ones is theirs to say.
    """
    if function.__name__ == "__init__":
        return function
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)


def install() -> None:
    install_import_hook(MODULES, f"{__name__}.checked")

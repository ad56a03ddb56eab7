"""Silence other libraries' messages, which would hide a command's output."""

from __future__ import annotations

import logging
import os
import warnings

OURS = "zerocon"


def quiet() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    # LPIPS builds its networks with an argument that torchvision has renamed.
    warnings.filterwarnings("ignore", category=UserWarning, module="torchvision.models._utils")
    for name in ("diffusers", "transformers", "httpx", "open_clip"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not logging.getLogger(OURS).handlers:
        logging.getLogger(OURS).setLevel(logging.WARNING)


def tell_more() -> None:
    """Say on stderr what is being done, one line for each step and case (`-v`)."""
    ours = logging.getLogger(OURS)
    ours.setLevel(logging.INFO)
    ours.propagate = False  # Hydra's handlers would repeat each line
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(handler)


def quiet_models() -> None:
    """Disable progress bars of loading weights; needs transformers imported."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()

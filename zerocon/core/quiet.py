"""Silence other libraries' messages, which would hide a command's output."""

from __future__ import annotations

import logging
import os
import warnings


def quiet() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("diffusers", "transformers", "httpx", "open_clip"):
        logging.getLogger(name).setLevel(logging.ERROR)


def quiet_models() -> None:
    """Disable progress bars of loading weights; needs transformers imported."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()

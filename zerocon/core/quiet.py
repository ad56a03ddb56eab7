"""Other libraries' chatter would bury what a command has to say."""

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
    """The same, for progress bars of weights that load at once; needs transformers imported."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()

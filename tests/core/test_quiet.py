"""Other libraries' chatter is turned down, but never against what the user has set."""

from __future__ import annotations

import logging
import os
import warnings

import pytest

from zerocon.core.quiet import quiet, quiet_models


def test_libraries_say_errors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    logger = logging.getLogger("httpx")
    monkeypatch.setattr(logger, "level", logging.INFO)
    with warnings.catch_warnings(record=True) as warned:
        quiet()
        warnings.warn("soon", FutureWarning, stacklevel=1)
        warnings.warn("now", UserWarning, stacklevel=1)
    assert [str(one.message) for one in warned] == ["now"]
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
    assert logger.level == logging.ERROR


def test_weights_load_without_a_bar() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.enable_progress_bar()
    quiet_models()
    assert not transformers_logging.is_progress_bar_enabled()

"""The explorer in a frame of a notebook."""

from __future__ import annotations

import pytest

from lscd.explorer import frame


def test_a_frame_refuses_an_unknown_preset() -> None:
    with pytest.raises(ValueError, match="did you mean opt-66b-two-gpus"):
        frame.show("opt-66b-two-gpu")

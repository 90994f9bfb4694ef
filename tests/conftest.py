"""Fixtures that several tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real galaxies that lie beside the checkout on the developers' machines; the project does not contain them."""
    folder = Path(os.environ.get("ZOOBOT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no shared data beside the checkout")
    return folder

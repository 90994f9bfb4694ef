"""The package as a whole: what each module says of itself, and what importing it costs."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import zoobot

MODULES = [module.name for module in pkgutil.walk_packages(zoobot.__path__, "zoobot.") if "__main__" not in module.name]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for_and_what_it_gives(name):
    module = importlib.import_module(name)
    assert module.__doc__
    if hasattr(module, "__path__"):
        return  # a folder
    assert all(hasattr(module, member) for member in module.__all__)


@pytest.mark.parametrize("name", ["zoobot.cli.main", "zoobot.data.shard_writing", "zoobot.predictions.evaluate"])
def test_what_needs_no_torch_does_not_wait_for_it(name):
    code = f"import sys, {name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

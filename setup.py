"""Puts `assets/` into the wheel, as `empo_demo/assets`; everything else is in `pyproject.toml`.

The assets lie beside the package and not in it, because a Space's visitors and the recipes look
for them there; setuptools takes only what lies in a package.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithAssets(build_py):
    """Copy the assets beside the modules; an editable install reads those of the clone."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_tree("assets", str(Path(self.build_lib) / "empo_demo" / "assets"))


setup(cmdclass={"build_py": BuildWithAssets})

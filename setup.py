"""Builds the compiled core where there is a compiler; without one the package works all the same, in torch.

The core has a plain C interface and knows neither Python nor torch, so that one build serves all versions.
"""

import platform

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = "src/sfumato/models/mindscaip/native"
FLAGS = ["-std=c++17", "-g0", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
BUILDS = {"libsfumato": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    BUILDS["libsfumato_v3"] = ["-march=x86-64-v3"]


class BuildCore(build_ext):
    """Files are named without the version of Python, and a failure is no failure of the installation."""

    def get_ext_filename(self, fullname):
        return fullname.replace(".", "/") + ".so"

    def get_export_symbols(self, ext):
        return []


class Wheel(bdist_wheel):
    """For any Python on one platform."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"build_ext": BuildCore, "bdist_wheel": Wheel},
    ext_modules=[
        Extension(
            f"sfumato.models.mindscaip.native.{name}",
            [f"{FOLDER}/core.cpp"],
            depends=[f"{FOLDER}/{part}.h" for part in ("attention", "block", "geometry", "lanes", "network")]
            + [f"{FOLDER}/{part}.h" for part in ("parts", "pass", "products", "rows", "sight")],
            extra_compile_args=[*FLAGS, *more],
            language="c++",
            optional=True,
        )
        for name, more in BUILDS.items()
    ],
)

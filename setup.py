"""`conf/` and `experiments/` stand at the top level here, and inside the package once installed."""

from setuptools import find_packages, setup

FOLDERS = {"zerocon.conf": "conf", "zerocon.experiments": "experiments"}

setup(
    packages=[*find_packages(include=["zerocon*"]), *FOLDERS],
    package_dir=FOLDERS,
)

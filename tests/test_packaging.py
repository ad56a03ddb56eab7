"""The wheel contains what a run needs, and works from any folder."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUICK = ["dataset.limit=1", "method.steps=2", "metrics.clip=null", "metrics.lpips=null",
         "metrics.structure=null", "metrics.truth=null"]  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because building writes beside the sources."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("zerocon", "conf", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__", "*.png", "*.md")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out)]
    done = subprocess.run([*build, str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel, which sees this environment's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    seen = tmp_path_factory.mktemp("dependencies")
    for place in site.getsitepackages():
        for entry in Path(place).iterdir():
            ours = "zerocon" in entry.name or entry.suffix == ".pth"
            if not ours and not (seen / entry.name).exists():
                (seen / entry.name).symlink_to(entry)
    (packages / "dependencies.pth").write_text(f"{seen}\n")
    installer = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--offline"]
    subprocess.run([*installer, "--python", str(folder / "bin/python"), str(wheel)], check=True)
    return folder / "bin"


def called(command: list[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done


@pytest.mark.slow
def test_the_wheel_has_every_file(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    code = {p.relative_to(ROOT).as_posix() for p in (ROOT / "zerocon").rglob("*.py")}
    conf = {f"zerocon/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "conf").rglob("*.yaml")}
    sets = {
        f"zerocon/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "experiments").rglob("*.yaml")
    }
    assert code | conf | sets <= inside
    assert "zerocon/reports/gallery/page.html" in inside
    assert "zerocon/reports/page/page.html" in inside
    assert "zerocon/shapes/weights/generator/model_index.json" in inside
    assert not {name for name in inside if name.startswith(("conf/", "experiments/"))}


@pytest.mark.slow
def test_the_installed_package_works_from_another_folder(installed: Path, tmp_path: Path) -> None:
    code = "import zerocon; print(zerocon.__file__)"
    assert str(installed.parent) in called([installed / "python", "-c", code], tmp_path).stdout
    assert called([installed / "zerocon", "--version"], tmp_path).stdout.startswith("zerocon ")
    assert "zerocon run" in called([installed / "zerocon", "run", "--help"], tmp_path).stdout
    listed = called([installed / "python", "-m", "zerocon", "experiment"], tmp_path).stdout
    assert "all_methods" in listed
    composed = called([installed / "zerocon", "run", "--cfg", "job", "method=p2p"], tmp_path).stdout
    assert "zerocon.methods.P2P" in composed
    done = called([installed / "zerocon", "run", *QUICK], tmp_path)
    assert "1 case, 0 failed" in done.stdout
    again = called([installed / "zerocon", "run", *QUICK], tmp_path)
    assert "1 case, 0 failed" in again.stdout


@pytest.mark.slow
def test_an_editable_install_works(tmp_path: Path) -> None:
    """From a checkout, whose conf/ and experiments/ stand beside the package."""
    venv.create(tmp_path / "environment", symlinks=True)
    python = tmp_path / "environment/bin/python"
    (packages,) = tmp_path.glob("environment/lib/python*/site-packages")
    seen = tmp_path / "dependencies"
    seen.mkdir()
    for place in site.getsitepackages():
        for entry in Path(place).iterdir():
            if "zerocon" not in entry.name and entry.suffix != ".pth":
                (seen / entry.name).symlink_to(entry)
    (packages / "dependencies.pth").write_text(f"{seen}\n")
    copy = tmp_path / "checkout"
    for name in ("zerocon", "conf", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--offline"]
    command += ["--no-build-isolation", "--python", str(python), "--editable", str(copy)]
    subprocess.run(command, check=True)
    composed = called([python, "-m", "zerocon", "run", "--cfg", "job"], tmp_path).stdout
    assert "zerocon.methods.ZeroCon" in composed

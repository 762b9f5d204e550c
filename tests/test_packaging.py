"""The distribution: pins that fit the bounds, no local builds, no host written down."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_direct_dependencies_are_bounded_and_pinned_within_the_bounds() -> None:
    pinned = pins()
    extras = project()["optional-dependencies"]
    for text in [*project()["dependencies"], *(text for extra in extras.values() for text in extra)]:
        requirement = Requirement(text)
        operators = {specifier.operator for specifier in requirement.specifier}
        assert {">=", "<"} <= operators, text
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


def test_pins_fit_the_cpu_and_the_cuda_build() -> None:
    assert not [version for version in pins().values() if "+" in version]
    assert not [name for name in pins() if name.startswith(("nvidia", "triton", "cuda"))]


def test_no_registry_host_is_written_down() -> None:
    names = ("pypi", "pythonhosted", "npmjs", "download.pytorch", "deb.debian")
    hosts = "|".join(re.escape(name) + r"\.(org|com)" for name in names)
    found = subprocess.run(["git", "grep", "-nIE", hosts, "--", "."], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == ""


def test_all_weights_together_stay_within_64_mib() -> None:
    folders = (ROOT / "gglm/weights", ROOT / "rag/embedders/gglm-embed-zh")
    sizes = {file: file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file()}
    assert sum(file.name == "model.safetensors" for file in sizes) >= 2
    assert sum(sizes.values()) <= 64 * 2**20, sizes

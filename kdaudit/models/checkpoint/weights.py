"""Which safetensors files are a model's weights, and which tensors lie in them; no tensor is read.

transformers loads model.safetensors, or the shards that model.safetensors.index.json names. vLLM without an
index loads every *.safetensors of the folder. What is found here is what both load; anything else is refused.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.errors import ModelError, reason
from kdaudit.models.checkpoint.files import read_json, unreadable
from kdaudit.runs.files import open_regular

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MOST_HEADER_BYTES = 32 << 20
"""Largest header; one of a hundred thousand tensors holds about 12 MB."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_OTHER_FORMS = {"*.h5": "TensorFlow", "*.msgpack": "Flax", "*.onnx": "ONNX", "*.npz": "NumPy"}


class Tensor(NamedTuple):
    """Where one tensor lies."""

    file: Path
    dtype: str
    """As safetensors calls it: F32, BF16, F8_E4M3, I32 ..."""
    shape: tuple[int, ...]
    start: int
    """Its first byte in the file."""
    stop: int
    """The byte after its last one."""


class Weights(NamedTuple):
    """A model's weights."""

    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor]


def find_weights(folder: Path, key: str) -> Weights:
    """Find the files that both engines load, and read their headers.

    Args:
        folder: the model's folder; `check_files` has passed it.
        key: where it stands in the configuration, for messages.

    Raises:
        ModelError: there are none, some are missing, damaged or of another form, the index and the shards
            disagree, or an engine would load further files.

    """
    whole, index = folder / WHOLE, folder / INDEX
    if whole.exists() and index.exists():
        raise ModelError(
            f"{folder} holds both {WHOLE} and {INDEX}, and engines differ in which they load",
            fix="remove the one that is out of date",
            key=f"{key}.path",
        )
    if not whole.exists() and not index.exists():
        raise _no_weights(folder, key)
    wanted = _shards(index, key) if index.exists() else None
    files = tuple(folder / name for name in sorted({*wanted.values()})) if wanted else (whole,)
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in read_header(file, key).items():
            if name in tensors:
                raise ModelError(
                    f"{folder} holds the tensor {name} twice, in {tensors[name].file.name} and in "
                    f"{file.name}",
                    fix="remove the shards that are out of date, or save the model again",
                    key=f"{key}.path",
                )
            tensors[name] = tensor
    if not tensors:
        raise ModelError(f"{whole} holds no tensors", fix="save the model again", key=f"{key}.path")
    if wanted is not None:
        _check_index(index, wanted, tensors, key)
    _refuse_further(folder, files, wanted, key)
    return Weights(files, tensors)


def read_header(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, from its header; the file's length is checked against it.

    Raises:
        ModelError: it is damaged, cannot be read, or its header is too large.

    """
    from safetensors import SafetensorError, safe_open

    try:
        with open_regular(path) as handle:
            size = int.from_bytes(handle.read(8), "little")
            if size > _MOST_HEADER_BYTES:
                raise ValueError(f"a header of {size:,} bytes, where at most {_MOST_HEADER_BYTES:,} are read")
            header = handle.read(size)
        with safe_open(path, framework="np"):  # its own checks: offsets, overlaps, the file's length
            pass
        described = json.loads(header)
        return {
            name: _tensor(path, 8 + size, entry)
            for name, entry in described.items()
            if name != "__metadata__"
        }
    except PermissionError as error:
        raise unreadable(path, key) from error
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is damaged or was not copied whole ({reason(error)})",
            fix="copy or save it again",
            key=f"{key}.path",
        ) from None


def _tensor(path: Path, data: int, entry: dict[str, Any]) -> Tensor:
    start, stop = entry["data_offsets"]
    return Tensor(path, entry["dtype"], tuple(entry["shape"]), data + start, data + stop)


def read_index(index: Path, key: str) -> dict[str, str]:
    """The file of each tensor, by model.safetensors.index.json; whether they lie there is not checked.

    Raises:
        ModelError: it cannot be read, or names none.

    """
    described = read_json(index, key)
    found = described.get("weight_map")
    if not isinstance(found, dict) or not found:
        raise ModelError(f"{index} names no shards", fix="save the model again", key=f"{key}.path")
    if not isinstance(described.get("metadata"), dict):
        raise ModelError(
            f'{index} has no "metadata", which transformers needs',
            fix='save the model again, or write "metadata": {} into it',
            key=f"{key}.path",
        )
    return {str(name): str(file) for name, file in found.items()}


def _shards(index: Path, key: str) -> dict[str, str]:
    """The index, all of whose files lie there."""
    files = read_index(index, key)
    names = sorted({*files.values()})
    lacking = [name for name in names if Path(name).name != name or not (index.parent / name).is_file()]
    if lacking:
        raise ModelError(
            f"{index.parent} lacks {lacking[0]} ({len(lacking)} of {len(names)} shards that "
            f"{INDEX} names are missing)",
            fix="copy or fetch them again",
            key=f"{key}.path",
        )
    other = [name for name in names if not name.endswith(".safetensors")]
    if other:
        raise ModelError(
            f"{index} names {other[0]}, which is not a safetensors file",
            fix="save the model again",
            key=f"{key}.path",
        )
    return files


def _check_index(index: Path, wanted: Mapping[str, str], tensors: Mapping[str, Tensor], key: str) -> None:
    """Refuse an index of another save than the shards beside it."""
    for name, file in wanted.items():
        if name not in tensors or tensors[name].file.name != file:
            there = f"it lies in {tensors[name].file.name}" if name in tensors else "no shard holds it"
            raise ModelError(
                f"{index} says that the tensor {name} lies in {file}, and {there}; "
                "index and shards are of different saves",
                fix="copy both again, or save the model again",
                key=f"{key}.path",
            )
    unnamed = next((name for name in tensors if name not in wanted), None)
    if unnamed is not None:
        raise ModelError(
            f"{tensors[unnamed].file} holds the tensor {unnamed}, which {INDEX} does not name; "
            "index and shards are of different saves",
            fix="copy both again, or save the model again",
            key=f"{key}.path",
        )


def _refuse_further(
    folder: Path, files: tuple[Path, ...], wanted: Mapping[str, str] | None, key: str
) -> None:
    """Refuse safetensors files that would not be fingerprinted and that an engine may load or look at.

    vLLM also reads the headers of those that the index does not name, to decide whether weights are tied.
    """
    pattern = str(Path(glob.escape(str(folder))) / "*.safetensors")  # hidden files are left out, as in vLLM
    for name in sorted(glob.glob(pattern)):  # noqa: PTH207 - what vLLM itself calls
        path = Path(name)
        if path in files or (wanted is not None and _is_mistral_copy(path, wanted, key)):
            continue
        raise ModelError(
            f"{path} lies beside the model's weights "
            f"({files[0].name}{f' and {len(files) - 1} more' if len(files) > 1 else ''}) without "
            "being part of them, and engines differ in whether they load it",
            fix="move it out of the folder",
            key=f"{key}.path",
        )


def _is_mistral_copy(path: Path, wanted: Mapping[str, str], key: str) -> bool:
    """Whether a file is the same model in Mistral's own form, which no engine looks at beside an index."""
    if not path.name.startswith("consolidated"):
        return False
    names = read_header(path, key).keys()
    return not any(name in wanted or name.endswith("lm_head.weight") for name in names)


def _no_weights(folder: Path, key: str) -> ModelError:
    """What lies there in place of weights."""
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        return ModelError(
            f"{folder} holds no {WHOLE}, and no {INDEX} that names {others[0]}",
            fix="save the model again with save_pretrained, or rename the file if it is the whole model",
            key=f"{key}.path",
        )
    if gguf := sorted(path.name for path in folder.glob("*.gguf")):
        return ModelError(
            f"{folder} holds only weights in GGUF form ({gguf[0]}), which are quantized or meant "
            "for llama.cpp and not supported",
            fix="name the model before quantization",
            key=f"{key}.path",
        )
    if pickles := list(_named(folder, *_PICKLES)):
        return ModelError(
            f"{folder} holds only pickled weights ({pickles[0]}), which can run code when loaded",
            fix="where you trust them, load the model and save it with "
            "model.save_pretrained(FOLDER), which writes safetensors",
            key=f"{key}.path",
        )
    for pattern, form in _OTHER_FORMS.items():
        if found := list(_named(folder, pattern)):
            return ModelError(
                f"{folder} holds only weights in {form} form ({found[0]})",
                fix="save the model with model.save_pretrained(FOLDER), which writes safetensors",
                key=f"{key}.path",
            )
    return ModelError(
        f"{folder} holds no weights", fix=f"it needs {WHOLE} or {INDEX} and its shards", key=f"{key}.path"
    )


def _named(folder: Path, *patterns: str) -> Iterator[str]:
    return (path.name for pattern in patterns for path in sorted(folder.glob(pattern)))

"""Hostile model folders: odd configurations, damaged headers, stray shards, links, FIFOs, huge files.

A tiny model's folder is copied and spoiled in one to three ways. Then the product's model resolution must end
in time and memory, either in a UsageError that names the model, or in a model of which just the fingerprinted
weights are loaded: by the transformers engine, which is tried, and by vLLM, whose choice is stated here.
"""

from __future__ import annotations

import functools
import glob
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzzing import main
from safetensors.torch import load_file, save_file
from toys import VOCABULARY, save_model, tokenizer
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from kdaudit.config.models import ModelConfig
from kdaudit.errors import UsageError
from kdaudit.inference.transformers import load_model
from kdaudit.models.resolving import ResolvedModel, resolve_model

_SECONDS = 30
"""Within which so small a model must be taken or refused."""
_MIB = 1 << 20
_MOST_MIB = 1024
"""By which the process may grow in a case."""
_WHOLE, _INDEX, _CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 3, 63, 10**9, 2**31, 2**63, 10**30, -0.5, 1e300, float("nan"), float("inf"),
    "", "x" * 5000, "\x1b[31mred\x1b[0m", "a\nb", "../..", "/dev/zero", "\ud800", [], [1], [[]], {}, {"a": 1},
    {"": None}, ["LlamaForCausalLM"], "auto", "float8_e4m3fn", "cuda",
)  # fmt: skip
_KEYS = (
    "architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size",
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "rope_parameters", "rope_scaling", "rope_theta", "rms_norm_eps",
    "hidden_act", "tie_word_embeddings", "attention_bias", "mlp_bias", "dtype", "torch_dtype",
    "quantization_config", "transformers_weights", "configuration_files", "speculators_config",
    "auto_map", "_attn_implementation", "attn_implementation", "experts_implementation",
    "output_attentions", "output_hidden_states", "return_dict", "use_cache", "is_decoder",
    "pad_token_id", "bos_token_id", "eos_token_id", "text_config", "num_labels", "id2label",
    "layer_types", "sliding_window", "attn_logit_softcapping", "per_layer_config", "fusion_config",
    "name_or_path", "is_encoder_decoder", "n_layer", "n_embd", "n_head", "n_positions", "n_inner",
    "activation_function", "compression_config", "quantization", "gradient_checkpointing",
    "sub_configs", "attribute_map", "base_model_tp_plan", "to_dict", "chunk_size_feed_forward",
)  # fmt: skip
_SETTINGS = (
    _CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
    "quantize_config.json", "adapter_config.json", "params.json", "hf_quant_config.json", _INDEX,
    _WHOLE, "vocab.json", "merges.txt",
)  # fmt: skip
_STRAYS = (
    "model_ema.safetensors", "consolidated.safetensors", "model-00002-of-00002.safetensors",
    "a\nb.safetensors", "\x1b[2Jx.safetensors", ".hidden.safetensors", "adapter_model.safetensors",
    "pytorch_model.bin", "model.gguf",
)  # fmt: skip
_DTYPES = (
    torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int32, torch.bool,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.int64,
)  # fmt: skip
_FOLDERS = ("model", "model[1]", "a b", "\x1b[31mred", "a\nb", "ünï", "-x", "x.safetensors", "{key}")

Spoil = Callable[[random.Random, Path], None]


@functools.cache
def _models() -> tuple[Path, ...]:
    """Tiny models of several families, tied and not, whole and in shards."""
    root = Path(tempfile.mkdtemp(prefix="kdaudit-fuzz-models-"))
    save_model(root / "llama", 1)
    gpt2 = GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=1, n_head=2, n_positions=64)
    gemma = Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, max_position_embeddings=64,
        pad_token_id=None, bos_token_id=None,
    )  # fmt: skip
    for name, model in {"gpt2": GPT2LMHeadModel(gpt2), "gemma2": Gemma2ForCausalLM(gemma)}.items():
        model.save_pretrained(root / name)
        tokenizer().save_pretrained(root / name)
    shutil.copytree(root / "llama", root / "shards")
    _split(root / "shards", 3)
    return tuple(root / name for name in ("llama", "gpt2", "gemma2", "shards"))


def _split(folder: Path, count: int) -> None:
    tensors, files = load_file(folder / _WHOLE), {}
    (folder / _WHOLE).unlink()
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        part = dict(list(tensors.items())[number::count])
        save_file(part, folder / name, metadata={"format": "pt"})
        files |= dict.fromkeys(part, name)
    (folder / _INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))


def _weights(chance: random.Random, folder: Path) -> Path | None:
    """One of the folder's files of weights, where it is still one."""
    found = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file()]
    return chance.choice(found) if found else None


def _regular(path: Path) -> bool:
    return path.is_file() and path.stat().st_size < _MIB


def _describe(chance: random.Random, folder: Path) -> None:
    path = folder / chance.choice([_CONFIG] * 6 + ["generation_config.json", "tokenizer_config.json"])
    try:
        described: Any = json.loads(path.read_text()) if _regular(path) else {}
    except (ValueError, RecursionError):
        return  # spoiled before
    if not isinstance(described, dict):
        return
    for _ in range(chance.randrange(1, 4)):
        place = described
        if chance.random() < 0.15:
            place = described.setdefault("text_config", {}) or described
        key = chance.choice([*_KEYS, *described])
        if chance.random() < 0.2:
            place.pop(key, None) if isinstance(place, dict) else None
        elif isinstance(place, dict):
            place[key] = chance.choice(_ODD)
    path.unlink(missing_ok=True)
    path.write_bytes(json.dumps(described).encode("utf-8", "surrogatepass"))


def _json(chance: random.Random, folder: Path) -> None:
    odd = [
        b"", b"{", b"[]", b"null", b"3", b'"x"', b"[" * 200_000, b'{"a": NaN}', b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b"\0" * 100, b'{"weight_map": {"a": "b"}}', b'{"weight_map": 3}', b'{"a":' * 50_000, b"1" * 9000,
        b'{"model_type": "llama"}', b'{"model_type": ["llama"]}', b'{"lm_head.weight": "x"}',
    ]  # fmt: skip
    _put(folder / chance.choice(_SETTINGS)).write_bytes(chance.choice(odd))


def _put(path: Path) -> Path:
    """A place where a file can be made."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


def _special(chance: random.Random, folder: Path) -> None:
    path = _put(folder / chance.choice([*_SETTINGS, *_STRAYS]))
    kind = chance.randrange(7)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        with path.open("wb") as handle:
            handle.truncate(1 << 40)
    else:
        path.symlink_to(chance.choice(["/dev/zero", "gone", path.name, "..", "/etc/hostname", "/dev/full"]))


def _header(chance: random.Random, folder: Path) -> None:
    path = _weights(chance, folder)
    if path is None or not _regular(path):
        return
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        name = chance.choice([name for name in header if name != "__metadata__"])
        entry = header[name]
    except (ValueError, IndexError, TypeError, AttributeError):
        return
    kind = chance.randrange(7)
    if kind == 0:
        entry["dtype"] = chance.choice(["F16", "I32", "F8_E4M3", "F64", "Q4", "", 3])
    elif kind == 1:
        entry["shape"] = chance.choice([[], [-1], [2**63, 2**63], [64], "x", [[1]], [1e9], None])
    elif kind == 2:
        entry["data_offsets"] = chance.choice([[0, 4], [4, 0], [0, 2**63], [-4, 4], [], None, [0, 1, 2]])
    elif kind == 3:
        header[chance.choice(["lm_head.weight", "\x1b[31m", "a\nb", "", "x" * 9000, "h.0.attn.bias"])] = entry
    elif kind == 4:
        del header[name]
    elif kind == 5:
        header["__metadata__"] = chance.choice([{"format": "tf"}, {"format": 3}, [], {"a": "\x1b[2J"}])
    else:
        header[name] = chance.choice([None, [], {}, {"dtype": "F32"}])
    written = json.dumps(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + data[8 + size :])


def _bytes(chance: random.Random, folder: Path) -> None:
    path = _weights(chance, folder)
    if path is None or not _regular(path):
        return
    data = bytearray(path.read_bytes())
    kind = chance.randrange(4)
    if kind == 0:
        data = data[: chance.randrange(len(data) + 1)]
    elif kind == 1:
        data += bytes(chance.randrange(1, 9))
    elif kind == 2:
        data[:8] = chance.choice([0, 1, 2**20, 2**33, 2**63]).to_bytes(8, "little")
    else:
        for _ in range(chance.randrange(1, 20)):
            data[chance.randrange(min(len(data), 4000))] = chance.randrange(256)
    path.write_bytes(data)


def _tensors(chance: random.Random, folder: Path) -> None:
    path = _weights(chance, folder)
    if path is None or not _regular(path):
        return
    try:
        there = load_file(path)
    except Exception:  # damaged before
        return
    name = chance.choice(sorted(there) or ["x"])
    one = there.get(name, torch.ones(2, 2))
    kind = chance.randrange(8)
    if kind == 0:
        there[name] = one.to(chance.choice(_DTYPES))
    elif kind == 1:
        there[name] = torch.full_like(one, chance.choice([float("nan"), float("inf"), 0.0]))
    elif kind == 2:
        there.pop(name, None)
    elif kind == 3:
        there[chance.choice(["lm_head.weight", "extra.weight", "a.lora_A.weight", "a.qweight"])] = one.clone()
    elif kind == 4:
        there["lm_head.weight"] = torch.randn(VOCABULARY, 64)
    elif kind == 5:
        there[name] = one[:-1].clone() if one.dim() and len(one) else one
    elif kind == 6:
        there["\x1b[31m\n" + name] = there.pop(name, one)
    else:
        there = {key: value.to(torch.bfloat16) for key, value in there.items()}
    save_file({key: value.contiguous() for key, value in there.items()}, path)


def _tie(chance: random.Random, folder: Path) -> None:
    path = folder / _CONFIG
    if _regular(path):
        try:
            described = json.loads(path.read_text())
            described["tie_word_embeddings"] = chance.random() < 0.8
            path.write_text(json.dumps(described))
        except (ValueError, TypeError, RecursionError):
            return
    _tensors(chance, folder)


def _stray(chance: random.Random, folder: Path) -> None:
    path = _put(folder / chance.choice(_STRAYS))
    source = _weights(chance, folder)
    if source is not None and _regular(source) and chance.random() < 0.7:
        shutil.copy(source, path)
    else:
        path.write_bytes(chance.choice([b"", b"x" * 100, (2).to_bytes(8, "little") + b"{}"]))


def _shards(chance: random.Random, folder: Path) -> None:
    if (folder / _WHOLE).is_file() and _regular(folder / _WHOLE) and chance.random() < 0.6:
        try:
            _split(folder, chance.randrange(1, 4))
        except Exception:  # damaged before
            return
    index = folder / _INDEX
    if not index.is_file() or not _regular(index):
        return
    try:
        files = json.loads(index.read_text())["weight_map"]
        name = chance.choice(sorted(files))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return
    kind = chance.randrange(5)
    if kind == 0:
        files[name] = chance.choice(["../x", "gone.safetensors", _CONFIG, "", None, 3, "\x1b[2J", "a\nb"])
    elif kind == 1:
        del files[name]
    elif kind == 2:
        files["nowhere.weight"] = files[name]
    elif kind == 3:
        (folder / str(files[name])).unlink(missing_ok=True)
    described = {"weight_map": files} | ({"metadata": {}} if chance.random() < 0.9 else {})
    index.write_text(json.dumps(described))


def _link(chance: random.Random, folder: Path) -> None:
    """Files as the hub's cache has them: links to regular ones elsewhere."""
    blobs = folder.parent / f"blobs-{chance.randrange(10**9)}"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        if path.is_file() and not path.is_symlink():
            path.rename(blobs / f"{number}")
            path.symlink_to(blobs / f"{number}")


_SPOILS: tuple[Spoil, ...] = (
    _describe, _describe, _describe, _json, _special, _special, _header, _header, _bytes, _tensors,
    _tensors, _tie, _stray, _shards, _link,
)  # fmt: skip


def attempt(chance: random.Random, folder: Path) -> str | None:
    """One model, spoiled; what went wrong, if anything did."""
    transformers.logging.disable_progress_bar()
    logging.disable(logging.CRITICAL)
    torch.manual_seed(chance.randrange(2**31))
    model = folder / chance.choice(_FOLDERS if chance.random() < 0.2 else _FOLDERS[:1])
    base = chance.choice(_models())
    shutil.copytree(base, model)
    spoils = [chance.choice(_SPOILS) for _ in range(chance.randrange(1, 4))]
    for spoil in spoils:
        spoil(chance, model)
    before = _peak()
    try:
        with _bounded():
            found = _judge(model)
    finally:
        logging.disable(logging.NOTSET)
    grown = _peak() - before
    if found is None and grown > _MOST_MIB:
        found = f"memory grew by {grown} MiB"
    return found and f"{base.name}, {', '.join(spoil.__name__ for spoil in spoils)}: {found}"


def _judge(folder: Path) -> str | None:
    try:
        found = resolve_model(ModelConfig(path=str(folder)), "models.teacher")
    except UsageError as error:
        said = str(error)
        return (
            None if said.startswith("models.teacher.") and str(folder) in said else f"it only says: {said!r}"
        )
    except Exception as error:  # what this looks for
        return f"resolution raised {error!r}"
    try:
        model = load_model(folder, "auto", "cpu", False)
    except Exception as error:  # as above
        return f"it was taken, and loading raised {error!r}"
    return _same_weights(folder, found, model) or _same_files(folder, found)


def _same_weights(folder: Path, found: ResolvedModel, model: Any) -> str | None:
    """Whether every parameter that was loaded lies in the files that were fingerprinted."""
    there = [tensor for path in found.weights.files for tensor in load_file(path).values()]
    for name, parameter in model.named_parameters():
        matches = (tensor for tensor in there if tensor.shape == parameter.shape)
        if not any(torch.equal(_bits(tensor.to(parameter.dtype)), _bits(parameter)) for tensor in matches):
            return f"{name} is not what {folder.name} holds"
    return None


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _same_files(folder: Path, found: ResolvedModel) -> str | None:
    """Whether vLLM 0.32 would load the same files, from a folder whose name is no pattern."""
    loaded = {Path(name) for name in glob.glob(f"{glob.escape(str(folder))}/*.safetensors")}  # noqa: PTH207
    index = folder / _INDEX
    if index.exists():
        loaded &= {folder / name for name in json.loads(index.read_text())["weight_map"].values()}
    return None if loaded == {*found.weights.files} else f"vLLM would load {sorted(loaded)}"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@contextmanager
def _bounded() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main(attempt, cases=250)

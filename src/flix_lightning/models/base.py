"""Base models: the built-in one, or any that Hugging Face's `from_pretrained` reads."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
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
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import sha256

#: Bases that the package carries.
BUILT_IN = {"cldr-base": Path(__file__).parents[1] / "cldr" / "base"}


@dataclass(frozen=True)
class Base:
    """A frozen base model in eval mode, its tokenizer, and whether it is an encoder-decoder."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool

    @property
    def decoder_start(self) -> list[int]:
        """Ids that an encoder-decoder's decoder reads before every target; none for a decoder-only model.

        The start token, then the one that the checkpoint forces to come first (BART: `<s>`), as it was
        pretrained with both. Raises UserError where it names no start.
        """
        if not self.is_encoder_decoder:
            return []
        said = self.model.generation_config
        if said.decoder_start_token_id is None:
            raise UserError(
                f"{self.model.name_or_path}: neither config.json nor generation_config.json has a "
                "decoder_start_token_id, the token that the decoder starts with"
            )
        forced = [] if said.forced_bos_token_id is None else [said.forced_bos_token_id]
        return [said.decoder_start_token_id, *forced]


def fingerprint(pretrained: str, revision: str) -> str:
    """What the weights are: SHA-256 over a folder's files; name and revision of a model on a hub.

    Raises UserError when `pretrained` looks like a folder and is not there.
    """
    source = _source(pretrained)
    if not source.is_dir():
        return f"{pretrained}@{revision}"
    digest = hashlib.sha256()
    for path in sorted(source.glob("*")):
        if path.suffix in (".json", ".safetensors", ".bin", ".model", ".txt"):
            digest.update(path.name.encode() + b"\0" + bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:16]


def load(pretrained: str, revision: str, dtype: str) -> Base:
    """Load a base model.

    Args:
        pretrained: a name in BUILT_IN, a folder, or a name on Hugging Face's hub.
        revision: the hub's branch, tag or commit; of no use for a folder.
        dtype: the weights' type, as torch names it (`float32`, `bfloat16`).

    Raises:
        UserError: no such folder or model, or one that cannot be read or generate text.
    """
    source = str(_source(pretrained))
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise UserError(f"model.dtype is {dtype!r}; a torch type such as float32 or bfloat16 is needed")
    # Weights are data, in safetensors or as torch's `weights_only` reads them; none bring code of their own.
    place = {
        "pretrained_model_name_or_path": source,
        "revision": revision,
        "trust_remote_code": False,
    }
    try:
        config = AutoConfig.from_pretrained(**place)
        tokenizer = AutoTokenizer.from_pretrained(**place)
        family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, report = family.from_pretrained(
            **place, dtype=kind, weights_only=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises what the hub, the files and their parsers raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"model.pretrained={pretrained} cannot be loaded ({type(error).__name__}: {reason}); "
            f"give {', '.join(BUILT_IN)}, a folder, or a model's name on the hub"
        ) from error
    if missing := sorted(report["missing_keys"]):  # transformers would leave them random
        raise UserError(
            f"model.pretrained={pretrained} lacks {len(missing)} weights of {type(model).__name__}, among "
            f"them {missing[0]}: it is no whole model that generates text"
        )
    if (tokenizer.pad_token_id or 0) >= model.get_input_embeddings().num_embeddings:
        tokenizer.pad_token = tokenizer.eos_token  # nothing attends to padding, but it must be readable
    model.generation_config = _greedy(model.generation_config, tokenizer)
    use_onednn(model)
    return Base(model.eval(), tokenizer, bool(config.is_encoder_decoder))


def _greedy(said: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Plain greedy generation up to the token that targets end in.

    Of what the checkpoint says, only how its decoder starts is kept: the rest may sample, search, forbid to
    repeat, or end in other tokens (a chat model's), none of which training knows of.
    """
    start = said.decoder_start_token_id
    return GenerationConfig(
        decoder_start_token_id=said.bos_token_id if start is None else start,
        forced_bos_token_id=said.forced_bos_token_id,
        bos_token_id=said.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _source(pretrained: str) -> Path:
    source = BUILT_IN.get(pretrained, Path(pretrained))
    # A name on a hub is `name` or `owner/name`; anything else can only be meant as a folder.
    if not source.is_dir() and (source.is_absolute() or pretrained.startswith(".") or len(source.parts) > 2):
        raise UserError(f"model.pretrained={pretrained}: no such folder")
    return source

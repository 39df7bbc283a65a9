"""The chat template of an instruction-tuned model: a user's message, and where its answer begins and ends."""

from transformers import PreTrainedTokenizerBase

from flix_lightning.common.errors import UserError, one_line

_MARK = "@flix@"  # stands for a message where only the text around it is asked for


def render(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Return `text` as a user's message, up to where the model's answer begins.

    A model that can think first (Qwen3) is asked not to: its answer begins after an empty thought.

    Raises:
        UserError: the tokenizer has no chat template, or its template refuses a single message.
    """
    return _apply(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)


def answer_start(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text between a user's message and the answer; raises UserError as `render`."""
    return render(tokenizer, _MARK).rpartition(_MARK)[2]


def end_of_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the token that ends an answer, as Gemma's `<end_of_turn>`.

    Raises:
        UserError: as `render`, or the template ends answers with no special token.
    """
    messages = [{"role": "user", "content": _MARK}, {"role": "assistant", "content": _MARK}]
    rest = _apply(tokenizer, messages).rpartition(_MARK)[2].strip()
    tokens = tokenizer.tokenize(rest, add_special_tokens=False)
    if not tokens or tokens[0] not in tokenizer.get_added_vocab():
        raise UserError(
            f"model.chat_template=true: the template of {tokenizer.name_or_path!r} has {rest!r} after an "
            "answer; a special token is needed, at which generation stops"
        )
    return tokens[0]


def _apply(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], **options: bool) -> str:
    if not tokenizer.chat_template:
        raise UserError(
            f"model.chat_template=true: the tokenizer of {tokenizer.name_or_path!r} has no chat template; "
            "take an instruction-tuned model, or model.chat_template=false"
        )
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False, **options)
    except Exception as error:  # a template is a program of the model's author
        reason = one_line(error, 300)
        raise UserError(
            f"model.chat_template=true: the template of {tokenizer.name_or_path!r} fails: {reason}"
        ) from error

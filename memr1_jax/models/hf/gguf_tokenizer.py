"""Tokenizers of GGUF files as those of the `tokenizers` package."""

from typing import Any

_NORMAL, _CONTROL, _OWN = 1, 3, 4  # GGUF's types of tokens; _OWN stand for themselves in any text


def byte_level(model: dict[str, Any]):
    """Builds SmolLM2's: byte-level BPE that isolates digits and adds no token around the text."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    tokens = model["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in model["tokenizer.ggml.merges"]]
    tokenizer = tokenizers.Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _add(tokenizer, model)
    return tokenizer


def sentencepiece(model: dict[str, Any]):
    """Builds Gemma's: pieces that are joined in the order of their scores, and single bytes."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, processors

    tokens = [token.replace(" ", "\u2581") for token in model["tokenizer.ggml.tokens"]]
    unknown = tokens[model["tokenizer.ggml.unknown_token_id"]]
    known = {token: i for i, token in enumerate(tokens)}
    merges = _merges(model, known)
    tokenizer = tokenizers.Tokenizer(
        models.BPE(known, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    _add(tokenizer, model)
    begin = model["tokenizer.ggml.bos_token_id"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokens[begin]} $A", special_tokens=[(tokens[begin], begin)]
    )
    return tokenizer


def _merges(model: dict[str, Any], known: dict[str, int]) -> list[tuple[str, str]]:
    """Lists the pairs of pieces that make up another, the best score first."""
    scores, kinds = model["tokenizer.ggml.scores"], model["tokenizer.ggml.token_type"]
    found = []
    for token, place in known.items():
        if kinds[place] != _NORMAL:
            continue
        for cut in range(1, len(token)):
            left, right = known.get(token[:cut]), known.get(token[cut:])
            if left is not None and right is not None:
                found.append((-scores[place], left, right, token[:cut], token[cut:]))
    return [(left, right) for *_, left, right in sorted(found)]


def _add(tokenizer, model: dict[str, Any]) -> None:
    """Adds the control tokens, and those that stand for themselves in a text."""
    from tokenizers import AddedToken

    kinds = model["tokenizer.ggml.token_type"]
    pairs = list(zip(model["tokenizer.ggml.tokens"], kinds, strict=True))
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t, k in pairs if k == _CONTROL])
    own = [t.replace(" ", "\u2581") for t, kind in pairs if kind == _OWN]
    tokenizer.add_tokens([AddedToken(token, normalized=True) for token in own])

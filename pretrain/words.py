"""The embedded text encoder's word list and network: a small T5 with whole words as tokens."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from pretrain.art import ACCESSORIES, CLASSES, STYLES
from pretrain.scenes import SCENES
from pretrain.world import BESIDES, COLOURS, OWN, PLACES, SIZES, TEMPLATES, THING

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
FILLERS = "a an the wearing"
# Words that users are likely to write and that the world may learn later.
SPARE = (
    "little large old new cute shiny wooden glass metal toy statue plushy doll standing sitting lying "
    "next to near with without under over behind front inside view of from close up painting drawing style "
    "floating top background one two three street mountain lake river sky rain sun light dark black brown gray "
    "grey white gold silver hat scarf coat and its it is your his her this that middle facing holding "
    "bird truck boat ship bear lion house tree flower ball chicken bag clock doll lamp table bed sofa book cup mug"
)


def word_list() -> list[str]:
    """Every word of every caption, then spare words, sorted so that ids are stable."""
    text = " ".join(
        [*CLASSES, *ACCESSORIES, *SCENES, *COLOURS, *SIZES, *PLACES, *BESIDES, *STYLES.values(), THING, OWN, *TEMPLATES,
         FILLERS, SPARE]
    )
    text = text.replace("{a}", " ").replace("{thing}", " ").replace("{rest}", " ")
    return sorted(set(text.lower().split()))


def build_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([PAD, END, UNKNOWN, ",", ".", *word_list()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)


def build_encoder(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> T5EncoderModel:
    """A T5 encoder with at least eight unused rows after the word list, as flan-t5 has."""
    rows = (len(tokenizer) + 8 + 31) // 32 * 32
    config = T5Config(
        vocab_size=rows,
        d_model=width,
        d_kv=64,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=width // 64,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return T5EncoderModel(config)


def drop_words(rng: np.random.Generator, ids: list[int], unknown: int, chance: float) -> list[int]:
    """Replace some words by "unknown" and put it before others, so that words outside the list do little harm."""
    heard = []
    for token in ids[:-1]:
        if rng.random() < chance:
            heard.append(unknown)
        heard.append(unknown if rng.random() < chance else token)
    return [*heard, ids[-1]]

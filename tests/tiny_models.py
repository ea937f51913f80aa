"""Tiny encoders with tokenizers of their own kind, made on the spot in the form in which the Hub keeps checkpoints.

Tests need the ways in which encoders differ (where layers live, how words become tokens, which id pads, from which
position counting starts) but not what they know. So each family is built here with random weights of a few kilobytes,
and everything that reads a checkpoint meets the same files, names and classes as in the large original.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import TokenizersBackend

CORPUS: tuple[str, ...] = (
    "I am so happy that Maria came home today!",
    "She felt sad and lonely after the long winter in Oslo.",
    "The film was wonderful, and the actors were a joy to watch.",
    "What a terrible movie: the plot was boring and the ending was worse.",
    "I love the way Daniel laughs at his own jokes.",
    "He was angry about the broken window and shouted at everyone.",
    "We were surprised to see Mr. Tanaka at the station in Kyoto.",
    "I feel afraid when the wind howls around the old house.",
    "This is the best picture the director has made in ten years.",
    "The music is lovely, but the story never finds its heart.",
    "Anna and Peter visited London, Paris and Berlin last summer.",
    "I was furious, then ashamed, and finally just tired.",
    "The children were excited about the trip to the sea.",
    "Is there anything more romantic than a quiet evening in Venice?",
    "My brother works for the United Nations in Geneva.",
    "It's a funny, warm and honest comedy about growing up.",
    "The second half drags, and the dialogue feels flat.",
    "I am grateful for every letter that Grandma Ruth has written.",
    "The villain is so scary that I could not sleep afterwards!",
    "Professor Okafor gave a talk at the University of Lagos.",
    "I hated the noise, the crowd and the endless queue.",
    "You will cry, you will laugh, and you will want to see it again.",
    "They feel hopeful about the new school and its teachers.",
    "The Harbour Bank opened an office in Sydney on Monday.",
    "An awful script wastes a very good cast.",
    "I feel a little nervous, yet strangely calm.",
    "Brazil beat Norway 2-1 in a thrilling match on Sunday.",
    "The camera follows Elena through the empty streets of Lisbon.",
    "I can't believe how amazing the last scene was.",
    "He misses his friends and feels miserable without them.",
    "The critics praised it; the audience stayed away.",
    "We adore our neighbours, who bring us apples and gossip.",
    "Nobody expected the quiet boy from Quebec to win the race.",
    "A dull thriller without any tension, pace or surprise.",
    "I was shocked when I heard what had happened to Amir.",
    "The hero is charming and the sword fights are great fun.",
    "She smiled, opened the letter and began to dance.",
    "Northern Rail said that trains between Leeds and York were late.",
    "I feel disgusted by the smell of the river today.",
    "Please tell Sofia that her painting made me very proud.",
)
"""Original sentences with feelings, films and names: the words that tests of thaw's tasks are made of."""

POSITIONS = 64
"""The longest input, in tokens. Families that count positions from the pad id on need that many rows more."""


@dataclass(frozen=True)
class Recipe:
    """What sets one architecture apart: the classes it loads with, its special tokens and its configuration."""

    model_type: str
    tokenizer: str = "BertTokenizer"
    first_tokens: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    """Special tokens that take the first ids, in the order of the original, since some code relies on these ids."""
    last_tokens: Sequence[str] = ()
    """Special tokens that come after all others, as in the original."""
    tokenizer_options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


_FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
_SIZES = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": POSITIONS}
_COUNTED_FROM_PAD = {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_DEBERTA_V3 = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
}

_RECIPES: dict[str, Recipe] = {
    "bert": Recipe("bert"),
    "bert_cased": Recipe("bert", tokenizer_options={"do_lower_case": False}),
    "distilbert": Recipe("distilbert", config={"hidden_dim": 64}),
    "roberta": Recipe("roberta", "RobertaTokenizer", _FAIRSEQ, ("<mask>",), config=_COUNTED_FROM_PAD),
    "xlm_roberta": Recipe("xlm-roberta", "XLMRobertaTokenizer", _FAIRSEQ, ("<mask>",), config=_COUNTED_FROM_PAD),
    "electra": Recipe("electra", config={"embedding_size": 16}),
    "albert": Recipe(
        "albert",
        "AlbertTokenizer",
        ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
        config={"embedding_size": 16, "num_hidden_groups": 1},
    ),
    "deberta_v3": Recipe(
        "deberta-v2", "DebertaV2Tokenizer", ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), ("[MASK]",), config=_DEBERTA_V3
    ),
    "mpnet": Recipe("mpnet", "MPNetTokenizer", (*_FAIRSEQ, "[UNK]"), ("<mask>",), config=_COUNTED_FROM_PAD),
    "modernbert": Recipe(
        "modernbert",
        "TokenizersBackend",
        first_tokens=(),
        last_tokens=("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"),
        config={"local_attention": 8, "global_attn_every_n_layers": 2},
    ),
}

ARCHITECTURES: tuple[str, ...] = tuple(_RECIPES)


def build(
    architecture: str,
    folder: Path,
    *,
    layers: int = 3,
    positions: int = POSITIONS,
    corpus: Sequence[str] = CORPUS,
    seed: int = 0,
) -> Path:
    """Save a tiny encoder of this architecture, with a tokenizer trained on the corpus, and return its folder.

    The checkpoint has no head, as those of encoders on the Hub have none that classifies. The same arguments give the
    same files, whatever the state of torch's random numbers, which this leaves untouched.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    auto_model: Any = AutoModel  # its methods have no types
    recipe = _RECIPES[architecture]
    tokenizer = _build_tokenizer(recipe, corpus)
    tokenizer.model_max_length = positions
    tokenizer.save_pretrained(folder)
    special_ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    if architecture == "modernbert":
        special_ids |= {name: getattr(tokenizer, name) for name in ("cls_token_id", "sep_token_id")}
    options = {"vocab_size": len(tokenizer), "num_hidden_layers": layers, **special_ids, **_SIZES, **recipe.config}
    options["max_position_embeddings"] += positions - POSITIONS
    config = AutoConfig.for_model(recipe.model_type, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto_model.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def _build_tokenizer(recipe: Recipe, corpus: Sequence[str]) -> TokenizersBackend:
    """A tokenizer of the recipe's class, with a vocabulary of a few hundred learnt from the corpus.

    The class itself provides the steps before and after the vocabulary (normalization, splitting, special tokens
    around the text), so they are what transformers has for the family.
    """
    import transformers

    options = {"model_max_length": POSITIONS, **recipe.tokenizer_options}
    if recipe.tokenizer == "TokenizersBackend":
        return _build_modernbert_tokenizer(recipe, corpus, options)
    tokenizer_class = getattr(transformers, recipe.tokenizer)
    steps = tokenizer_class(**options).backend_tokenizer
    kind = tokenizer_class.model.__name__
    if kind == "Unigram":
        scores = _learn_pieces(steps, corpus, continuation="")
        vocab: Any = [(token, 0.0) for token in recipe.first_tokens]
        vocab += [*scores.items(), *((token, 0.0) for token in recipe.last_tokens)]
    elif kind == "WordPiece":
        pieces = _learn_pieces(steps, corpus, continuation="##")
        vocab = _numbered(*recipe.first_tokens, *pieces, *recipe.last_tokens)
    else:
        bytes_and_merged, options["merges"] = _learn_merges(steps, corpus)
        vocab = _numbered(*recipe.first_tokens, *bytes_and_merged, *recipe.last_tokens)
    tokenizer: TokenizersBackend = tokenizer_class(vocab=vocab, **options)
    return tokenizer


def _build_modernbert_tokenizer(recipe: Recipe, corpus: Sequence[str], options: Mapping[str, Any]) -> TokenizersBackend:
    """ModernBERT has no tokenizer class of its own: its steps are spelled out in its tokenizer.json."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import TokenizersBackend

    tokenizer_class: Any = TokenizersBackend  # its constructor has no types
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    pieces, merges = _learn_merges(backend, corpus)
    backend.model = models.BPE(_numbered(*pieces), merges)
    backend.add_special_tokens([AddedToken(token, lstrip=token == "[MASK]") for token in recipe.last_tokens])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    inputs = ["input_ids", "attention_mask"]
    tokenizer: TokenizersBackend = tokenizer_class(
        tokenizer_object=backend, model_input_names=inputs, **names, **options
    )
    return tokenizer


def _learn_merges(steps: Tokenizer, corpus: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The pieces of a byte-level BPE vocabulary, by id, and the merges that make them."""
    from tokenizers import pre_tokenizers

    model = json.loads(_train_bpe(steps, corpus, 500, pre_tokenizers.ByteLevel.alphabet()).to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [(left, right) for left, right in model["merges"]]


def _learn_pieces(steps: Tokenizer, corpus: Sequence[str], continuation: str) -> dict[str, float]:
    """Pieces of words and their log-probabilities, for WordPiece (which marks pieces inside a word) or Unigram.

    The library's own WordPiece and Unigram trainers give another vocabulary on each call, and a test must meet the
    same one each time. Its BPE trainer does not, so the pieces are those that BPE finds in the corpus, beside all
    single characters.
    """
    counts: Counter[str] = Counter()
    for encoding in _train_bpe(steps, corpus, 250, []).encode_batch(list(corpus)):
        starts = [None, *encoding.word_ids]
        for piece, word, previous in zip(encoding.tokens, encoding.word_ids, starts, strict=False):
            counts[piece if word != previous else continuation + piece] += 1
    characters = sorted(set("".join(counts).replace("#", "")))
    counts.update(characters + [continuation + character for character in characters])
    return {piece: math.log(count / counts.total()) for piece, count in counts.most_common()}


def _train_bpe(steps: Tokenizer, corpus: Sequence[str], size: int, alphabet: list[str]) -> Tokenizer:
    """A BPE tokenizer trained on words that are normalized and split as ``steps`` does, and free of punctuation."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.normalizer = steps.normalizer
    learner.pre_tokenizer = pre_tokenizers.Sequence([steps.pre_tokenizer, pre_tokenizers.Punctuation()])
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(corpus, trainer)
    return learner


def _numbered(*tokens: str) -> dict[str, int]:
    """A vocabulary with ids in this order."""
    return {token: index for index, token in enumerate(tokens)}

"""A transformer small enough to make for a test: 16 features, 60 positions, words of one letter each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FEATURES = 16
POSITIONS = 60


def write_tiny_transformer(folder: Path, *, seed: int = 0, **saving: Any) -> Path:
    """A folder with config.json, tokenizer.json and safetensors weights drawn from `seed`.

    Args: saving: passed to the library's `save_pretrained`, such as max_shard_size.
    """
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=FEATURES,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config, add_pooling_layer=False)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, **saving)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder

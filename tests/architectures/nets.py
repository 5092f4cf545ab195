"""Small random networks of architectures that transformers has."""

import numpy as np
import torch
import transformers
from torch import nn

TEXT = {"vocab_size": 40, "num_labels": 2, "pad_token_id": 0}
BERT = {
    **TEXT,
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    **{"max_position_embeddings": 16, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
LLAMA = {
    **TEXT,
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "max_position_embeddings": 16},
}
IMAGE = {"num_labels": 2, "num_channels": 3, "image_size": 16}
VIT = {
    **IMAGE,
    **{"patch_size": 4, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
ARCHITECTURES = {
    "bert": ("Bert", BERT),
    "roberta": ("Roberta", {**BERT, "max_position_embeddings": 20}),
    "electra": ("Electra", {**BERT, "embedding_size": 12}),
    "albert": ("Albert", {**BERT, "embedding_size": 12}),  # one layer, used twice
    "distilbert": (
        "DistilBert",
        {
            **TEXT,
            **{"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 16},
            **{"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
        },
    ),
    "gpt2": (
        "GPT2",
        {
            **TEXT,
            **{"n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2},
            **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        },
    ),
    "llama": ("Llama", LLAMA),
    "mixtral": ("Mixtral", {**LLAMA, "num_local_experts": 3, "num_experts_per_tok": 2}),
    "vit": ("ViT", VIT),
    "swin": (
        "Swin",
        {
            **IMAGE,
            **{"patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
            **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0},
        },
    ),
    "mobilenet_v2": (
        "MobileNetV2",
        {
            **IMAGE,
            **{"depth_multiplier": 0.1, "min_depth": 4, "depth_divisible_by": 4, "last_hidden_size": 16},
            **{"classifier_dropout_prob": 0.0, "tf_padding": False},
        },
    ),
    "convnext": (
        "ConvNext",
        {**IMAGE, "hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "patch_size": 2},
    ),
}


class Net(nn.Module):
    """An architecture as a module from arrays to logits."""

    def __init__(self, name):
        super().__init__()
        prefix, options = ARCHITECTURES[name]
        kind = "Sequence" if "vocab_size" in options else "Image"
        config = getattr(transformers, f"{prefix}Config")(**options)
        self.takes_ids = kind == "Sequence"
        self.model = getattr(transformers, f"{prefix}For{kind}Classification")(config)

    def forward(self, X):
        return self.model(input_ids=X).logits if self.takes_ids else self.model(pixel_values=X).logits


def build(name, n=160):
    """Return a network, samples, labels and groups."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = Net(name)
    X = (
        rng.integers(1, 40, (n, 8))
        if net.takes_ids
        else rng.normal(size=(n, 3, 16, 16)).astype(np.float32)
    )
    y = (X.reshape(n, -1)[:, 0] > np.median(X.reshape(n, -1)[:, 0])).astype(int)
    return net, X, y, np.array(["a", "b"])[np.arange(n) // 3 % 2]

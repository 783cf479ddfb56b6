"""Builders of the tiny models behind `tests/families.py`; libraries are imported when needed."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

TOKENS, VOCAB, WIDTH, CLASSES, PIXELS = 8, 50, 32, 5, 32


def hugging_face(model: str, config: str, options: dict[str, Any]) -> nn.Module:
    """A transformers model from a configuration, both by class name."""
    import transformers

    return getattr(transformers, model)(getattr(transformers, config)(**options))


BERT = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": CLASSES,
}
SEQ2SEQ = {
    "vocab_size": VOCAB,
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 32,
    "dropout": 0.0,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
DISTILBERT = {
    "vocab_size": VOCAB,
    "dim": WIDTH,
    "n_layers": 3,
    "n_heads": 2,
    "hidden_dim": 64,
    "max_position_embeddings": 32,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "seq_classif_dropout": 0.0,
    "num_labels": CLASSES,
}
GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": WIDTH,
    "n_layer": 3,
    "n_head": 2,
    "n_positions": 32,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}
T5 = {
    "vocab_size": VOCAB,
    "d_model": WIDTH,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
HF_VIT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": PIXELS,
    "patch_size": 8,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": CLASSES,
}


def timm_model(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)


def timm_vit() -> nn.Module:
    size = {"img_size": PIXELS, "patch_size": 8, "embed_dim": WIDTH, "depth": 3, "num_heads": 2}
    return timm_model("vit_tiny_patch16_224", **size)


def timm_swin() -> nn.Module:
    size = {"img_size": PIXELS, "embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2)}
    return timm_model("swin_tiny_patch4_window7_224", window_size=4, drop_path_rate=0.0, **size)


def timm_resnet() -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    channels = (8, 16, 24, 32)
    return ResNet(BasicBlock, (1, 2, 1, 1), num_classes=CLASSES, stem_width=8, channels=channels)


def tv_resnet18() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=CLASSES)


def tv_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    size = {"image_size": PIXELS, "patch_size": 8, "num_layers": 3, "num_heads": 2}
    return VisionTransformer(hidden_dim=WIDTH, mlp_dim=64, num_classes=CLASSES, **size)


def tv_swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    size = {"patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2]}
    return SwinTransformer(
        window_size=[4, 4], stochastic_depth_prob=0.0, num_classes=CLASSES, **size
    )


def timm_convnext() -> nn.Module:
    return timm_model("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 16, 24, WIDTH))


class RecurrentAttention(nn.Module):
    """Recurrent layers, self attention over their output, a linear head.

    Args:
        recurrent: the kind of recurrent layer.
        is_stack: two layers as two modules, rather than as one module with `num_layers=2`.
    """

    def __init__(self, recurrent: type[nn.LSTM | nn.GRU], *, is_stack: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        num_modules, num_layers = (2, 1) if is_stack else (1, 2)
        self.recurrent = nn.ModuleList(
            recurrent(WIDTH, WIDTH, num_layers, batch_first=True) for _ in range(num_modules)
        )
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Class scores, shape (B, classes), of tokens, shape (B, N)."""
        hidden = self.embedding(tokens)
        for layer in self.recurrent:
            hidden, _ = layer(hidden)
        attended, _ = self.attention(hidden, hidden, hidden, need_weights=False)
        return self.classifier(attended.mean(dim=1))


def transformer_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 64, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, num_layers=3)


def transformer_decoder() -> nn.Module:
    layer = nn.TransformerDecoderLayer(WIDTH, 2, 64, dropout=0.0, batch_first=True)
    return nn.TransformerDecoder(layer, num_layers=3)


def transformer() -> nn.Module:
    return nn.Transformer(WIDTH, 2, 2, 2, 64, dropout=0.0, batch_first=True)


def mlp() -> nn.Module:
    hidden = [module for _ in range(3) for module in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return nn.Sequential(nn.Linear(TOKENS, WIDTH), nn.ReLU(), *hidden, nn.Linear(WIDTH, CLASSES))


def _convolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]


def cnn() -> nn.Module:
    layers = [*_convolution(3, 8), *_convolution(8, 16), *_convolution(16, WIDTH)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, CLASSES))

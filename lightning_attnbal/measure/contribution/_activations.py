"""What activations and outputs say without labels: for comparison, none is a loss decrease."""

from __future__ import annotations

import math

from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import normalize

from lightning_attnbal.measure.contribution._tensors import check_same_shapes, wide


def activation_change(before: Tensor, after: Tensor) -> float:
    """How far a unit's output moved between two times, on the same inputs.

    ‖a_after − a_before‖₂ / ‖a_before‖₂. No unit, in [0, inf); 0 if both are all zeros, inf if only
    `before` is. A unit's output also moves because units below it train.

    Args:
        before: the earlier output, any shape.
        after: the later output for the same inputs, the same shape.

    Raises:
        ValueError: the shapes differ.

    Source:
        The relative change that convergence tests use, applied to activations.

    Example:
        >>> import torch
        >>> activation_change(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0]))
        0.2...
    """
    check_same_shapes("before", [before], "after", [after])
    size = float(vector_norm(wide(before)))
    change = float(vector_norm(wide(after) - wide(before)))
    if size == 0:
        return math.inf if change else 0.0
    return change / size


def similarity(activation: Tensor) -> Tensor:
    """How alike the samples of a batch look to a unit.

    G = rows of A·Aᵀ scaled to length 1, A the activations as (B, rest). Shape (B, B), in [−1, 1].

    Raises:
        ValueError: the activation has no batch dimension, or an empty one.

    Source:
        Tung, Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, eq. 2.

    Example:
        >>> import torch
        >>> similarity(torch.eye(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if activation.dim() == 0 or len(activation) == 0:
        msg = (
            "Expected `activation` to have a batch dimension of at least 1, "
            f"but got shape {tuple(activation.shape)}."
        )
        raise ValueError(msg)
    rows = wide(activation).flatten(1) if activation.dim() > 1 else wide(activation)[:, None]
    return normalize(rows @ rows.T, dim=1)


def plasticity(activation: Tensor, reference: Tensor) -> float:
    """How much the similarities between samples differ from a reference snapshot of the unit.

    P = ‖G − G_ref‖_F² / B², with G the `similarity` matrix of the unit's output on a fixed batch of
    B samples. No unit, in [0, 4/B]. Blind to what leaves all similarities as they are, such as a
    rotation of the features or a common factor.

    Args:
        activation: the unit's output now, shape (B, ...).
        reference: the snapshot's output for the same inputs, shape (B, ...); the other dimensions
            may differ.

    Raises:
        ValueError: the batches differ in size, or have none.

    Source:
        Wang, Sun, Chen, Fan, "Egeria: Efficient DNN Training with Knowledge-Guided Layer Freezing",
        EuroSys 2023: similarity-preserving loss of Tung and Mori against a reference model. There
        the reference is a quantised copy that is renewed from time to time, and freezing follows
        the slope of the smoothed P; here the caller keeps the reference, and we give P alone.

    Example:
        >>> import torch
        >>> plasticity(torch.eye(2), torch.ones(2, 2))
        0.29...
    """
    return similarity_distance(similarity(activation), similarity(reference))


def similarity_distance(now: Tensor, reference: Tensor) -> float:
    """‖G − G_ref‖_F² / B² of two similarity matrices of shape (B, B).

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> similarity_distance(torch.eye(2), torch.zeros(2, 2))
        0.5
    """
    check_same_shapes("activation", [now], "reference", [reference])
    return float((now - reference).square().sum()) / now.numel()


def output_entropy(logits: Tensor, *, dim: int = -1) -> float:
    """How undecided a model is: mean entropy of its softmax output, as a share of the largest.

    H = −Σ_c p_c ln p_c / ln C, p = softmax(logits), averaged over all other dimensions. No unit, in
    [0, 1]: 0 for certainty, 1 for equal probabilities.

    Args:
        logits: any shape, C ≥ 2 classes along `dim`, no NaN.
        dim: where the classes are; the last dimension by convention.

    Raises:
        ValueError: fewer than two classes.

    Source:
        Shannon, "A Mathematical Theory of Communication", 1948; as an objective without labels in
        Wang et al., "Tent: Fully Test-time Adaptation by Entropy Minimization", ICLR 2021, there
        not divided by ln C.

    Example:
        >>> import torch
        >>> round(output_entropy(torch.zeros(3, 10)), 4)
        1.0
    """
    num_classes = logits.shape[dim]
    if num_classes < 2:
        msg = f"Expected `logits` to have at least 2 classes, but got {num_classes}."
        raise ValueError(msg)
    log_p = wide(logits).log_softmax(dim)
    # a class of probability 0 has log_p −inf and counts 0
    entropy = -(log_p.exp() * log_p.clamp_min(-1e30)).sum(dim).mean()
    return float((entropy / math.log(num_classes)).clamp(0, 1))

"""Fused attention, read as what it computes: softmax(q k^T) v."""

from __future__ import annotations

import torch

from nnc.graph.ir import Tensor
from nnc_torch.record import Call

aten = torch.ops.aten


def attention(call: Call) -> bool | None:
    """_scaled_dot_product_*(query, key, value, ..., attn_mask or attn_bias, ...)."""
    q, k, v = call.read("query"), call.read("key"), call.read("value")
    assert q is not None and k is not None and v is not None
    if k.shape[:-2] != v.shape[:-2]:
        return False
    rank = len(q.shape)
    if q.shape[:-2] != k.shape[:-2]:
        k, v = _repeated(call, k, q.shape[-3]), _repeated(call, v, q.shape[-3])
    # The scale is the square root of the size of q's last axis unless given: that axis is not free.
    whole = call.node("along", (q,), q.shape, axes=(rank - 1,), scale=call.get("scale"))
    order = (*range(rank - 2), rank - 1, rank - 2)
    turned = call.node("transpose", (k,), [k.shape[axis] for axis in order], permutation=order)
    scores = call.node("matmul", (whole, turned), (*q.shape[:-1], k.shape[-2]))
    name = next((name for name in ("attn_mask", "attn_bias") if name in call), None)
    mask = call.read(name) if name else None
    if mask is not None:
        scores = call.node("binary", (scores, mask), scores.shape, function="other")
    weights = call.node("along", (scores,), scores.shape, axes=(rank - 1,))
    call.emit("matmul", weights, v)
    return None


def _repeated(call: Call, x: Tensor, heads: int) -> Tensor:
    """Give each head of a key or value `(..., groups, length, width)` to the heads of the query that share it, which lie side by side."""
    *lead, groups, length, width = x.shape
    times = heads // groups
    single, many, joined = (*lead, groups, 1, length, width), (*lead, groups, times, length, width), (*lead, heads, length, width)
    apart = call.node("reshape", (x,), single)
    copies = call.node("expand", (apart,), many)
    return call.node("reshape", (copies,), joined)


READERS = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention,
    aten._scaled_dot_product_flash_attention: attention,
    aten._scaled_dot_product_efficient_attention: attention,
    aten._scaled_dot_product_cudnn_attention: attention,
}

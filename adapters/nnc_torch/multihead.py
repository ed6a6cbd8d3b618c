"""nn.MultiheadAttention with fewer heads.

torch takes the size of a head from the width of the query, so its own forward cannot run once heads have left: 2 heads of 8 in a width
of 32 would be read as 2 of 16. A shrunk instance gets the forward below, which is torch's, operation for operation, but for that.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nnc.views import Site

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def follow(module: nn.MultiheadAttention) -> None:
    """Set the sizes of a cut attention to those of its weights, and install the forward that honours them."""
    width, inner = module.out_proj.weight.shape
    heads = inner // module.head_dim
    first, second, third = _weights(module)
    module.kdim, module.vdim = second.shape[1], third.shape[1]
    if (heads, width) != (module.num_heads, module.embed_dim) or heads * module.head_dim != width or first.shape[1] != width:
        module.num_heads, module.embed_dim = heads, width
        # Keeps nn.TransformerEncoderLayer from its fused kernel, which derives the size of a head as torch does.
        module._qkv_same_embed_dim = False
        module.forward = types.MethodType(forward, module)


def _weights(module: nn.MultiheadAttention) -> tuple[torch.Tensor, ...]:
    """Return the weights of queries, keys and values, which may be one parameter."""
    weight = module.in_proj_weight
    return (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight) if weight is None else (weight, weight, weight)


def open_up(modules: Mapping[str, nn.Module], sites: Iterable[Site]) -> list[nn.MultiheadAttention]:
    """Let the attentions whose output projection lies at one of `sites` call it as a layer, and return those that did not before.

    torch's own forward multiplies by the projection's weight and never runs the layer, so that no hook of it would be called.
    """
    found = []
    for site in sites:
        parent, _, last = site.layer.rpartition(".")
        module = modules.get(parent)
        if isinstance(module, nn.MultiheadAttention) and last == "out_proj" and not site.is_parameter and "forward" not in vars(module):
            module.forward = types.MethodType(_opened, module)
            found.append(module)
    return found


def close(module: nn.Module) -> None:
    """Give an attention that was opened up torch's own forward back."""
    if getattr(vars(module).get("forward"), "__func__", None) is _opened:
        del module.forward


def _opened(self: Any, *args: Any, **kwargs: Any) -> Any:
    return forward(self, *args, **kwargs)


def forward(
    self: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what nn.MultiheadAttention.forward does: the outputs, and the attention weights or None."""
    batched = query.dim() == 3
    key_padding_mask = _as_float(key_padding_mask, query, "key_padding_mask")
    attn_mask = _as_float(attn_mask, query, "attn_mask")
    if is_causal and attn_mask is None:
        raise RuntimeError("is_causal is a hint about attn_mask, so attn_mask is needed with it")
    if is_causal and key_padding_mask is None and not need_weights:
        attn_mask = None
    is_causal = is_causal and key_padding_mask is None
    if self.batch_first and batched:
        query, key, value = _apply(query, key, value, lambda x: x.transpose(1, 0))
    if not batched:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    output, weights = _attend(self, _projected(self, query, key, value), key_padding_mask, need_weights, attn_mask, is_causal)
    if weights is not None and average_attn_weights:
        weights = weights.mean(dim=1)
    if not batched:
        return output.squeeze(1), None if weights is None else weights.squeeze(0)
    return output.transpose(1, 0) if self.batch_first else output, weights


def _as_float(mask: torch.Tensor | None, query: torch.Tensor, name: str) -> torch.Tensor | None:
    """Return a boolean mask as addends: minus infinity where it is True."""
    return functional._canonical_mask(mask, name, None, "", query.dtype, check_other=False)


def _apply(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, function: Any) -> Tensors:
    """Apply a function to the three; a key that is the value stays it, and so does a query that is both."""
    if key is not value:
        return function(query), function(key), function(value)
    turned = function(query)
    other = turned if query is key else function(key)
    return turned, other, other


def _projected(self: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Tensors:
    """Return queries, keys and values, (length, batch, heads * head_dim), with as many products as torch's own forward needs."""
    weight, bias, inner = self.in_proj_weight, self.in_proj_bias, self.num_heads * self.head_dim
    if weight is None:
        weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        return _three(query, key, value, weights, bias)
    if key is not value:
        return _three(query, key, value, weight.chunk(3), bias)
    if query is key:
        q, k, v = _parts(functional.linear(query, weight, bias), 3, inner)
        return q, k, v
    first, rest = weight.split([inner, inner * 2])
    first_bias, rest_bias = (None, None) if bias is None else bias.split([inner, inner * 2])
    q = functional.linear(query, first, first_bias)
    k, v = _parts(functional.linear(key, rest, rest_bias), 2, inner)
    return q, k, v


def _three(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, weights: Any, bias: torch.Tensor | None) -> Tensors:
    biases = (None, None, None) if bias is None else bias.chunk(3)
    q, k, v = (functional.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    return q, k, v


def _parts(projected: torch.Tensor, count: int, inner: int) -> list[torch.Tensor]:
    """Take the parts of one product apart, in memory one behind the other."""
    parts = projected.unflatten(-1, (count, inner)).unsqueeze(0).transpose(0, -2).squeeze(-2).contiguous()
    return [parts[number] for number in range(count)]


def _attend(
    self: Any,
    projected: Tensors,
    key_padding_mask: torch.Tensor | None,
    need_weights: bool,
    attn_mask: torch.Tensor | None,
    is_causal: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    q, k, v = projected
    length, batch = q.shape[:2]
    heads, width = self.num_heads, self.head_dim
    if attn_mask is not None and attn_mask.dim() == 2:
        attn_mask = attn_mask.unsqueeze(0)
    if self.bias_k is not None:
        k, v = (torch.cat([x, extra.repeat(1, batch, 1)]) for x, extra in ((k, self.bias_k), (v, self.bias_v)))
        attn_mask, key_padding_mask = _grown(attn_mask), _grown(key_padding_mask)
    q, k, v = (x.view(x.shape[0], batch * heads, width).transpose(0, 1) for x in (q, k, v))
    if self.add_zero_attn:
        k, v = (torch.cat([x, torch.zeros((batch * heads, 1, width), dtype=x.dtype, device=x.device)], dim=1) for x in (k, v))
        attn_mask, key_padding_mask = _grown(attn_mask), _grown(key_padding_mask)
    if key_padding_mask is not None:
        padding = key_padding_mask.view(batch, 1, 1, k.shape[1]).expand(-1, heads, -1, -1).reshape(batch * heads, 1, k.shape[1])
        attn_mask = padding if attn_mask is None else attn_mask + padding
    attend = _weighed if need_weights else _fused
    mixed, weights = attend(self, q, k, v, attn_mask, is_causal)
    output = self.out_proj(mixed.reshape(length * batch, heads * width))
    output = output.view(length, batch, output.size(1))
    return output, None if weights is None else weights.view(batch, heads, length, k.shape[1])


def _grown(mask: torch.Tensor | None) -> torch.Tensor | None:
    return None if mask is None else functional.pad(mask, (0, 1))


def _weighed(self: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, is_causal: bool) -> Any:
    """Return the mixed values, (length, batch * heads, head_dim), and the weights, (batch * heads, length, keys)."""
    scaled = q * math.sqrt(1.0 / self.head_dim)
    scores = torch.bmm(scaled, k.transpose(-2, -1)) if mask is None else torch.baddbmm(mask, scaled, k.transpose(-2, -1))
    weights = functional.softmax(scores, dim=-1)
    if self.training and self.dropout > 0.0:
        weights = functional.dropout(weights, p=self.dropout)
    return torch.bmm(weights, v).transpose(0, 1), weights


def _fused(self: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, is_causal: bool) -> Any:
    """Return the mixed values, (length, batch, heads, head_dim), and no weights."""
    batch, heads, width = q.shape[0] // self.num_heads, self.num_heads, self.head_dim
    if mask is not None:
        single = mask.size(0) == 1 and mask.dim() == 3
        mask = mask.unsqueeze(0) if single else mask.view(batch, heads, -1, k.shape[1])
    q, k, v = (x.view(batch, heads, x.shape[1], width) for x in (q, k, v))
    dropout = self.dropout if self.training else 0.0
    mixed = functional.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal)
    return mixed.permute(2, 0, 1, 3), None

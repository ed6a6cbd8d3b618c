"""Distillation losses in NumPy, in float64, written from their formulas with loops over samples, heads and tokens: what ours must equal."""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    """Return sum p log(p / q) of two vectors of probabilities, entries of no probability apart."""
    some = p > 0
    return float(np.sum(p[some] * (np.log(p[some]) - np.log(q[some]))))


def rows_of(z, mask=None):
    """Return logits as rows `(N, V)`, the valid ones."""
    rows = z.reshape(-1, z.shape[-1])
    return rows if mask is None else rows[mask.reshape(-1) > 0]


def kl_logits(s, t, temperature=1.0, mask=None):
    """Return T^2 mean_rows KL(p_t || p_s)."""
    pairs = zip(rows_of(s, mask), rows_of(t, mask), strict=True)
    return temperature**2 * np.mean([kl(softmax(b / temperature), softmax(a / temperature)) for a, b in pairs])


def ce_logits(s, t, temperature=1.0, mask=None):
    """Return -mean_rows sum p_t log p_s."""
    pairs = zip(rows_of(s, mask), rows_of(t, mask), strict=True)
    return np.mean([-np.sum(softmax(b / temperature) * np.log(softmax(a / temperature))) for a, b in pairs])


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def binary_ce(s, t, temperature=1.0):
    """Return the binary cross-entropy with soft targets, mean over rows of the sum over labels."""
    p, q = sigmoid(t / temperature), sigmoid(s / temperature)
    return np.mean(np.sum(-(p * np.log(q) + (1 - p) * np.log(1 - q)), axis=-1))


def mse(s, t, mask=None):
    """Return mean (s - t)^2 over valid tokens and the width."""
    return np.mean((rows_of(s, mask) - rows_of(t, mask)) ** 2)


def normalised_mse(s, t, mask=None):
    a, b = rows_of(s, mask), rows_of(t, mask)
    return np.mean((a / np.linalg.norm(a, axis=1).mean() - b / np.linalg.norm(b, axis=1).mean()) ** 2)


def cosine(s, t, mask=None):
    pairs = zip(rows_of(s, mask), rows_of(t, mask), strict=True)
    return np.mean([1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])


def pkd(s, t):
    """Return mean over the batch of |s/|s| - t/|t||^2 at the first token."""
    return np.mean([np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2) for a, b in zip(s[:, 0], t[:, 0], strict=True)])


def heads_of(x, sample, heads):
    """Return one sample's heads `(heads, L, d)` of `(B, L, D)`."""
    length, width = x.shape[1:]
    return x[sample].reshape(length, heads, width // heads).swapaxes(0, 1)


def mse_scores(sq, sk, tq, tk, heads, mask=None, causal=False):
    """Return the mean squared difference of Q K^T / sqrt(d) over samples, heads and valid pairs."""
    found = []
    for b in range(len(sq)):
        n = sq.shape[1] if mask is None else int(mask[b].sum())
        for h in range(heads):
            s, t = (heads_of(q, b, heads)[h] @ heads_of(k, b, heads)[h].T / np.sqrt(q.shape[-1] / heads) for q, k in ((sq, sk), (tq, tk)))
            found.extend((s - t)[row, key] ** 2 for row in range(n) for key in range(row + 1 if causal else n))
    return np.mean(found)


def relation(s_pair, t_pair, heads, mask=None, temperature=1.0, snip_norm=False, causal=False):
    """Return (1/B) sum_b 1/(H n_b) sum over heads and valid rows of KL(softmax(a b^T / sqrt d)_t || ..._s)."""
    total = 0.0
    batch, length = s_pair[0].shape[:2]
    for b in range(batch):
        n = length if mask is None else int(mask[b].sum())
        for h in range(heads):
            s, t = (
                heads_of(x, b, heads)[h][:n] @ heads_of(y, b, heads)[h][:n].T / np.sqrt(x.shape[-1] / heads) / temperature
                for x, y in (s_pair, t_pair)
            )
            ends = [row + 1 if causal else n for row in range(n)]
            rows = sum(kl(softmax(t[row, :end]), softmax(s[row, :end])) for row, end in enumerate(ends))
            total += rows / (batch * heads * n * (n if snip_norm else 1))
    return total


def between_heads(s, t, heads, mask=None):
    """Return PP-MiniLM's HH of one tensor: at each valid token, the relations of its heads."""
    batch, length, _ = s.shape
    found = []
    for b in range(batch):
        for i in range(length if mask is None else int(mask[b].sum())):
            p, q = (softmax((v := heads_of(x, b, heads)[:, i]) @ v.T / np.sqrt(x.shape[-1] / heads)) for x in (t, s))
            found.extend(kl(p[h], q[h]) for h in range(heads))
    return np.mean(found)


def between_samples(s, t, heads, mask=None):
    """Return PP-MiniLM's SS of one tensor: at each token and head, the relations of the samples that have that token."""
    batch, length, _ = s.shape
    mask = np.ones((batch, length)) if mask is None else mask
    found = []
    for i in range(length):
        there = np.flatnonzero(mask[:, i])
        for h in range(heads):
            p, q = (
                softmax((v := np.stack([heads_of(x, b, heads)[h, i] for b in there])) @ v.T / np.sqrt(x.shape[-1] / heads)) for x in (t, s)
            )
            found.extend(kl(p[b], q[b]) for b in range(len(there)))
    return np.mean(found)

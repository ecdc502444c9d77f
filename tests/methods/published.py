"""The authors' algorithms, written down plainly from their formulas: dense matrices, full SVDs, nothing from dcmerge.

Every function takes the deltas of one matrix in task order and computes in their dtype. Nothing is quick or careful.
Compare with float64: where the last kept singular value is close to the first dropped one, as in real deltas, an SVD in
float32 is itself wrong by up to 1e-3 of the merge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

KEEP = 1e-3
ADAPTER_RANK = 16


def polar(C: Tensor) -> Tensor:
    P, _, Q = torch.linalg.svd(C, full_matrices=False)
    return P @ Q


def keep_topk(M: Tensor, fraction: float) -> Tensor:
    count = max(1, int(fraction * M.numel()))
    smallest = M.abs().flatten().sort(descending=True).values[count - 1]
    return torch.where(M.abs() >= smallest, M, torch.zeros_like(M))


def ties_small(matrices: Sequence[Tensor]) -> Tensor:
    S = sum(matrices)
    total, voters = torch.zeros_like(S), torch.zeros_like(S)
    for M in matrices:
        votes = ((S > 0) & (M > 0)) | ((S < 0) & (M < 0))
        total[votes] += M[votes]
        voters[votes] += 1
    return torch.where(voters > 0, total / voters.clamp(min=1), torch.zeros_like(S))


def block_mask(k: int, tasks: int) -> Tensor:
    mask = torch.zeros(k, k)
    d = k // tasks
    for t in range(tasks):
        mask[t * d : (t + 1) * d, t * d : (t + 1) * d] = 1
    return mask


def flatter(s: Tensor, smoothing: str, rho: float) -> Tensor:
    if smoothing == "average":
        return torch.full_like(s, s.mean().item())
    if smoothing == "linear":
        w = torch.linspace(min(rho, (s[0] / s[-1]).item()), 1, len(s), dtype=s.dtype)
        return s.sum() * w / w.sum()
    return s


def dc_merge_full(
    deltas: Sequence[Tensor], keep: float = KEEP, smoothing: str = "none", rho: float = 5.0, mask: bool = True
) -> Tensor:
    """Full fine-tuning: bases of width k = min(m, n), zero-padded, rank int(k · (1/T))."""
    (m, n), tasks = deltas[0].shape, len(deltas)
    k = min(m, n)
    sum_u, sum_v, smoothed = deltas[0].new_zeros(m, k), deltas[0].new_zeros(k, n), []
    for t, delta in enumerate(deltas):
        u, s, vT = torch.linalg.svd(delta, full_matrices=False)
        r = int(len(s) * (1 / tasks))
        sum_u[:, t * r : (t + 1) * r], sum_v[t * r : (t + 1) * r] = u[:, :r], vT[:r]
        smoothed.append(u[:, :r] @ torch.diag(flatter(s[:r], smoothing, rho)) @ vT[:r])
    C_U, C_VT = polar(sum_u), polar(sum_v)
    aligned = [keep_topk(C_U.T @ D @ C_VT.T, keep) for D in smoothed]
    merged = ties_small(aligned)
    return C_U @ (merged * block_mask(k, tasks) if mask else merged) @ C_VT


def dc_merge_lora(
    deltas: Sequence[Tensor], smoothing: str = "average", rho: float = 5.0, keep: float = KEEP, rank: int = ADAPTER_RANK
) -> Tensor:
    """LoRA: dense products B A, a rank that is given, bases cut to T · rank."""
    (m, n), tasks = deltas[0].shape, len(deltas)
    width = tasks * rank
    sum_u, sum_v, smoothed = deltas[0].new_zeros(m, min(m, n)), deltas[0].new_zeros(min(m, n), n), []
    for t, delta in enumerate(deltas):
        u, s, vT = torch.linalg.svd(delta, full_matrices=False)
        u, s, vT = u[:, :rank], s[:rank], vT[:rank]
        sum_u[:, t * rank : (t + 1) * rank], sum_v[t * rank : (t + 1) * rank] = u, vT
        smoothed.append(u @ torch.diag(flatter(s, smoothing, rho)) @ vT)
    C_U, C_VT = polar(sum_u)[:, :width], polar(sum_v)[:width]
    aligned = [keep_topk(C_U.T @ D @ C_VT.T, keep) for D in smoothed]
    return C_U @ (ties_small(aligned) * block_mask(width, tasks)) @ C_VT


def tsv_m(deltas: Sequence[Tensor], rank: int | None = None) -> Tensor:
    (m, n), tasks = deltas[0].shape, len(deltas)
    k = min(m, n)
    sum_u, sum_s, sum_v = (deltas[0].new_zeros(shape) for shape in ((m, k), k, (k, n)))
    for t, delta in enumerate(deltas):
        u, s, vT = torch.linalg.svd(delta, full_matrices=False)
        r = int(len(s) * (1 / tasks)) if rank is None else rank
        part = slice(t * r, (t + 1) * r)
        sum_u[:, part], sum_s[part], sum_v[part] = u[:, :r], s[:r], vT[:r]
    return polar(sum_u) @ torch.diag(sum_s) @ polar(sum_v)


def iso_c(deltas: Sequence[Tensor]) -> Tensor:
    u, s, vT = torch.linalg.svd(sum(deltas), full_matrices=False)
    return u @ torch.diag(torch.full_like(s, s.mean().item())) @ vT


def iso_cts(deltas: Sequence[Tensor], fraction: float = 0.8) -> Tensor:
    (m, n), tasks = deltas[0].shape, len(deltas)
    r = min(m, n)
    specific = round((r - int(r * fraction)) / tasks) * tasks
    common = r - specific
    u, s, vT = torch.linalg.svd(sum(deltas), full_matrices=False)
    combined_u, combined_s, combined_v = (deltas[0].new_zeros(shape) for shape in ((m, r), r, (r, n)))
    each = specific // tasks
    for t, delta in enumerate(deltas):
        residual = delta - u[:, :common] @ u[:, :common].T @ delta
        u_t, s_t, vT_t = torch.linalg.svd(residual, full_matrices=False)
        part = slice(t * each, (t + 1) * each)
        combined_u[:, part], combined_s[part], combined_v[part] = u_t[:, :each], s_t[:each], vT_t[:each]
    combined_u[:, specific:], combined_s[specific:], combined_v[specific:] = u[:, :common], s[:common], vT[:common]
    return combined_s.mean() * polar(combined_u) @ polar(combined_v)


def ties(deltas: Mapping[str, Mapping[str, Tensor]], density: float = 0.2, aggregate: str = "mean") -> dict[str, Tensor]:
    """Over the flattened model, task -> name -> delta; back to one tensor a parameter."""
    names = list(next(iter(deltas.values())))
    flat = torch.stack([torch.cat([own[name].flatten() for name in names]) for own in deltas.values()])
    d = flat.shape[1]
    k = d - int(density * d)
    trimmed = flat.clone()
    for row in trimmed:
        threshold = row.abs().kthvalue(k).values if k else 0.0
        row[row.abs() < threshold] = 0
    sign = trimmed.sum(dim=0).sign()
    sign[sign == 0] = sign.sum().sign()
    selected = torch.where(torch.where(sign > 0, trimmed > 0, trimmed < 0), trimmed, torch.zeros_like(trimmed))
    merged = selected.sum(dim=0)
    if aggregate == "mean":
        merged = merged / (selected != 0).sum(dim=0).clamp(min=1)
    shapes = [next(iter(deltas.values()))[name].shape for name in names]
    parts = merged.split([shape.numel() for shape in shapes])
    return {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}


def pcb(deltas: Sequence[Tensor], ratio: float) -> Tensor:
    """Magnitudes clamped at 1 % at either end; their squares and the agreement with the sum score; the best ``ratio`` stays."""
    D = torch.stack([delta.flatten() for delta in deltas])
    count = D.shape[1]

    def within(x: Tensor, low: float, high: float) -> Tensor:
        ordered = x.sort(dim=1).values
        first, last = max(0, round(low * count) - 1), round((1 - high) * count) - 1
        return x.clamp(ordered[:, first, None], ordered[:, last, None])

    def to_unit(x: Tensor) -> Tensor:
        least, most = x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
        return (x - least) / (most - least)

    sizes = within(D.abs(), 0.01, 0.01)
    beta = torch.exp(len(D) * to_unit(sizes) ** 2) * torch.tanh(D * D.sum(dim=0))
    s = to_unit(within(beta, 1 - ratio, 0.0))
    return ((D.sign() * sizes * s).sum(dim=0) / s.sum(dim=0).clamp_min(1e-12)).reshape(deltas[0].shape)


def emr(models: Sequence[Mapping[str, Tensor]], size: str) -> list[dict[str, Tensor]]:
    """Every task's own vector: entry by entry the largest magnitude among those with the sum's sign, masked and rescaled."""
    elected = {}
    for name in models[0]:
        own = [model[name] for model in models]
        positive = sum(own) > 0
        most, least = torch.stack(own).amax(dim=0).clamp(min=0), torch.stack(own).amin(dim=0).clamp(max=0)
        elected[name] = torch.where(positive, most, least)
    found, reduce = [], torch.mean if size == "means" else torch.sum
    for model in models:
        masked = {name: torch.where(value * elected[name] > 0, elected[name], 0) for name, value in model.items()}
        whole, part = (sum(reduce(value.abs()) for value in one.values()) for one in (model, masked))
        found.append({name: whole / part * value for name, value in masked.items()})
    return found


def breadcrumbs(deltas: Sequence[Tensor], density: float, gamma: float, by_row: bool) -> Tensor:
    """Of every row, or of the whole matrix, the entries behind the largest share ``gamma``, as many as ``density`` says."""

    def middle(x: Tensor) -> Tensor:
        first, mask = int(gamma * len(x)), torch.zeros_like(x)
        mask[x.abs().sort(descending=True).indices[first : first + int(density * len(x))]] = 1
        return x * mask

    if by_row:
        return sum(torch.stack([middle(row) for row in delta]) for delta in deltas)
    return sum(middle(delta.flatten()).reshape(delta.shape) for delta in deltas)


Pair = tuple[Tensor, Tensor]


def robustmerge_paper(factors: Sequence[Pair], density: float) -> Tensor:
    """Algorithm 1: Σ_n B̃_n diag(S̃_n) Ã_n; factors are pairs (B (m, r), A (r, n)), of each the largest entries stay."""

    def pruned(x: Tensor) -> Tensor:
        return keep_topk(x, round(density * x.numel()) / x.numel())

    S = torch.stack([A.abs().sum(dim=1) / pruned(A).abs().sum(dim=1) for _, A in factors])
    shares = S / S.sum(dim=0)
    return sum(pruned(B) @ torch.diag(share) @ pruned(A) for (B, A), share in zip(factors, shares, strict=True))


def robustmerge_code(factors: Sequence[Pair], density: float) -> Tensor:
    """The authors' code: both factors merged on their own, doubled; scales raised to the value at 80 % of their own order."""

    def pruned(x: Tensor) -> Tensor:
        threshold = x.abs().flatten().sort().values[int(x.numel() * (1 - density)) - 1]
        return x * (x.abs() >= threshold)

    S = torch.stack([A.abs().sum(dim=1) / pruned(A).abs().sum(dim=1) for _, A in factors])
    S = torch.maximum(S, S.sort(dim=1).values[:, int(S.shape[1] * 0.8), None])
    merged_A = sum(2 * pruned(A) for _, A in factors)
    merged_B = sum(2 * pruned(B) * scale for (B, _), scale in zip(factors, S, strict=True)) / S.sum(dim=0)
    return merged_B @ merged_A


def swudi(deltas: Sequence[Tensor], duration: float, leading: float) -> Tensor:
    """Gradient flow from the sum towards WUDI's minimum: every leading eigendirection goes the share 1 − exp(−λt) of its way."""
    A = sum(D.T @ D / D.norm() ** 2 for D in deltas)
    B = sum(D @ D.T @ D / D.norm() ** 2 for D in deltas)
    start, minimum = sum(deltas), B @ torch.linalg.pinv(A, hermitian=True)
    eigenvalues, Q = torch.linalg.eigh(A)
    share = 1 - torch.exp(-eigenvalues * duration / eigenvalues.mean())
    share[: len(share) - round(leading * len(share))] = 0
    return start + (minimum - start) @ Q @ torch.diag(share) @ Q.T

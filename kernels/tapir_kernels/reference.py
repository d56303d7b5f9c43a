"""Every op in plain torch: the definition that kernels must agree with, and the path taken without a GPU.

Does not check its inputs: the caller guarantees their shapes. The kernels' launchers do check.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH_RADIUS = 3
PATCH_SAMPLES = (2 * PATCH_RADIUS + 1) ** 2
TEMPORAL_TAPS = 3
IDLE = -1  # the phase of a lane that has no frame
NORM_EPSILON = 1e-5
UNIT_EPSILON = 1e-12
PEAK_RADIUS = 5.0
FAR_CELLS = 2.0**24  # positions farther out, or not finite, are outside every grid
# Up to about this many cells, a matrix product with the whole grid beats gathering 64 vectors a point (on a CPU).
DENSE_CELLS = 2048
DENSE_ROWS = 128  # with fewer rows oneDNN is no faster


def resize_rgb8(rgb: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Resizes and scales uint8 rgb [H, W, 3] to [1, 3, *size] in [-1, 1], channels-last.

    Bilinear, half-pixel centres, no antialiasing, as the public checkpoints were trained.
    """
    image = rgb.permute(2, 0, 1)[None].to(dtype).mul_(2 / 255).sub_(1)
    return image if rgb.shape[:2] == size else F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def l2_normalize(x: Tensor) -> Tensor:
    """x / |x| over channels, x [B, C, H, W]; a zero vector stays zero (TAPIR, section 3.1).

    Lengths are computed in float32 for any dtype of x.
    """
    single = x.float()
    return (single * single.square().sum(dim=1, keepdim=True).clamp_min(UNIT_EPSILON).rsqrt()).to(x.dtype)


def instance_norm_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalises each channel of x [B, C, H, W] over its pixels, scales by weight [C], adds bias [C]; then ReLU."""
    if x.device.type != "cpu" or torch.compiler.is_exporting():  # runtimes have an op for it
        return F.relu(F.group_norm(x, x.shape[1], weight, bias, NORM_EPSILON), inplace=True)
    # On a CPU torch sums channels-last pixels sequentially: wrong in the fifth digit, which moves points by 0.001 px.
    single = x.float()
    centred = single - _pixel_mean(single)
    scale = weight[:, None, None] * (_pixel_mean(centred.square()) + NORM_EPSILON).rsqrt()
    return F.relu(torch.addcmul(bias[:, None, None], centred, scale), inplace=True).to(x.dtype)


def _pixel_mean(x: Tensor) -> Tensor:
    """Mean over pixels of x [B, C, H, W], [B, C, 1, 1], summed row by row so that no sum is long."""
    batch, channels, height, width = x.shape
    strips = x.permute(0, 2, 3, 1).reshape(batch, height, width, channels).sum(dim=2)
    return strips.sum(dim=1)[:, :, None, None] / (height * width)


def dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., C] times weight [D, C], plus bias [D]: [..., D]."""
    if x.device.type != "cpu" or x.numel() < DENSE_ROWS * x.shape[-1] or torch.compiler.is_exporting():
        return F.linear(x, weight, bias)
    # A 1x1 convolution runs in oneDNN, up to twice as fast as torch's library for matrix products.
    pixels = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # [1, C, N, 1], channels-last
    return F.conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


def dense_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`dense`, then GELU in its tanh form."""
    if x.device.type == "cpu" or x.ndim != 2 or torch.is_grad_enabled():
        return F.gelu(dense(x, weight, bias), approximate="tanh")
    return torch._addmm_activation(bias, x, weight.mT, use_gelu=True)  # on a GPU fused with the matrix product


def cost_volume(queries: Tensor, grid: Tensor) -> Tensor:
    """Dot products of every query [G, N, C] with every cell of grid [G, H, W, C]: [G, N, H, W] (TAPIR, section 3.1)."""
    height, width = grid.shape[1:3]
    return (queries @ grid.flatten(1, 2).mT).view(*queries.shape[:2], height, width)


def soft_argmax(heat: Tensor, temperature: float) -> Tensor:
    """Where each heat map [M, H, W] peaks, in cells [M, 2] (x, y).

    The softmax's mean position over the cells closer than 5 cells to its arg-max (TAPIR, section 3.1).
    """
    _, height, width = heat.shape
    probability = torch.softmax(heat.flatten(1) * temperature, dim=1)  # [M, HW]
    y, x = torch.meshgrid(
        torch.arange(height, device=heat.device) + 0.5, torch.arange(width, device=heat.device) + 0.5, indexing="ij"
    )
    centres = torch.stack([x, y], dim=-1).flatten(0, 1).to(heat.dtype)  # [HW, 2]
    peak = centres[probability.argmax(dim=1)]  # [M, 2]
    near = (centres - peak[:, None]).square().sum(dim=-1) < PEAK_RADIUS**2  # [M, HW]
    weight = probability * near
    return (weight @ centres) / weight.sum(dim=1, keepdim=True).clamp_min(UNIT_EPSILON)


class CostReading(NamedTuple):
    """What `cost_volume_head` reads from M cost maps; float32, or the maps' dtype if wider."""

    xy: Tensor  # [M, 2] where each heat map peaks, in cells
    pooled: Tensor  # [M, 2K] features of the occlusion branch, averaged over the map
    heat: Tensor  # [M, H, W] before the softmax


def cost_volume_head(
    cost: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    heat_weight: Tensor,
    heat_bias: Tensor,
    occlusion_weight: Tensor,
    occlusion_bias: Tensor,
    temperature: float,
) -> CostReading:
    """The convolutions that read cost maps [M, P, H, W], up to the layers after pooling.

    A hidden layer (hidden_weight [K, P, 3, 3], hidden_bias [K]) and ReLU, then two branches: the heat map (heat_weight
    [1, K, 3, 3], heat_bias [1]) with its soft arg-max, and a convolution of stride 2 (occlusion_weight [2K, K, 3, 3],
    occlusion_bias [2K]), ReLU and the mean over the map (TAPIR, section 3.1). Convolutions are zero-padded, the strided
    one only at the bottom and right.
    """
    # On a CPU a convolution of so few channels is up to nine times as fast channels-last.
    cost = cost.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    hidden = F.relu(F.conv2d(cost, hidden_weight, hidden_bias, padding=1), inplace=True)  # [M, K, H, W]
    precise = torch.promote_types(cost.dtype, torch.float32)
    heat = _to_one_channel(hidden, heat_weight, heat_bias).to(precise)  # [M, H, W]
    occlusion = F.conv2d(F.pad(hidden, (0, 2, 0, 2)), occlusion_weight, occlusion_bias, stride=2)
    pooled = F.relu(occlusion, inplace=True).mean(dim=(2, 3), dtype=precise)  # [M, 2K]
    return CostReading(soft_argmax(heat, temperature), pooled, heat)


def _to_one_channel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A zero-padded 3x3 convolution of channels-last x [M, K, H, W] to one channel, [M, H, W].

    One matrix product makes nine maps, one per tap, which are added with shifts: three times as fast on a CPU as the
    library's convolution, which computes sixteen channels for one. An exported graph takes the convolution.
    """
    if torch.compiler.is_exporting():
        return F.conv2d(x, weight, bias, padding=1)[:, 0]
    maps, _, height, width = x.shape
    taps = weight[0].flatten(1).mT @ x.permute(0, 2, 3, 1).flatten(0, 2).mT  # [9, MHW]
    taps = taps.view(9, maps, height, width)
    total = taps[4] + bias
    for tap, values in enumerate(taps):
        down, across = tap // 3 - 1, tap % 3 - 1
        if down or across:
            inside = total[:, max(0, -down) : height - max(0, down), max(0, -across) : width - max(0, across)]
            inside += values[:, max(0, down) : height + min(0, down), max(0, across) : width + min(0, across)]
    return total


def local_correlations(features: Tensor, levels: Sequence[Tensor], xy: Tensor, size: tuple[int, int]) -> Tensor:
    """Local correlations with all levels of a pyramid, each [G, H, W, C]: [G, N, 49 L], level after level.

    xy [G, M, 2] is in pixels of a picture of `size` (height, width) that every level covers. Features [G, N, C] hold
    the channels of level 0, then of level 1, and so on; the remaining levels, pooled copies, share the last channels.
    N is a multiple of M: several looks at the same places, one after another, for which samples are taken once.
    """
    patches = []
    first = 0
    for grid in levels:
        channels = grid.shape[-1]
        part = features.narrow(-1, min(first, features.shape[-1] - channels), channels)
        first += channels
        x, y = xy[..., 0] * (grid.shape[2] / size[1]), xy[..., 1] * (grid.shape[1] / size[0])  # in cells
        patches.append(local_correlation(part, grid, torch.stack([x, y], dim=-1)))
    return torch.cat(patches, dim=-1)


def local_correlation(features: Tensor, grid: Tensor, xy: Tensor) -> Tensor:
    """Dot products of features [G, N, C] with 7x7 samples of grid [G, H, W, C] around xy [G, M, 2]: [G, N, 49].

    xy is in cells; feature n is compared around xy[n % M]. Samples are bilinear at offsets -3..3, y outer and x inner;
    the grid is zero outside (TAPIR, section 3.2), and a position that is not finite gives NaN. Bilinear sampling is
    linear, so this takes dot products with the surrounding 8x8 cells and blends those: 64 dot products a point instead
    of 49 samples of four cells each.
    """
    height, width, channels = grid.shape[1:]
    groups, points = xy.shape[:2]
    looks = features.shape[1] // max(1, points) or 1
    corner = torch.floor(xy - 0.5)
    fraction = xy - 0.5 - corner  # [G, M, 2]
    reach = torch.arange(-PATCH_RADIUS, PATCH_RADIUS + 2, device=xy.device)  # [8]
    start = torch.where(corner.abs() < FAR_CELLS, corner, -FAR_CELLS).long()
    columns = start[..., 0, None] + reach  # [G, M, 8]
    rows = start[..., 1, None] + reach
    inside = _within(rows, height)[..., :, None] & _within(columns, width)[..., None, :]  # [G, M, 8, 8]
    cells = rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    cells = cells.flatten(2)  # [G, M, 64]
    table = grid.flatten(1, 2)  # [G, HW, C]
    if height * width <= DENSE_CELLS:
        dots = (features @ table.mT).gather(2, cells.repeat(1, looks, 1))
    else:
        group = torch.arange(groups, device=xy.device)[:, None, None] * (height * width)
        around = table.flatten(0, 1).index_select(0, (cells + group).flatten())  # [G M 64, C]
        around = around.view(groups, points, cells.shape[2], channels)
        dots = around @ features.view(groups, looks, points, channels).permute(0, 2, 3, 1)  # [G, M, 64, looks]
        dots = dots.permute(0, 3, 1, 2).contiguous()  # else the lerps below keep an order that OpenVINO cannot read
    dots = dots.view(groups, looks, points, 8, 8).to(fraction.dtype)  # blended in the precision of positions
    dots = dots * inside[:, None]
    across, down = fraction[:, None, :, 0, None, None], fraction[:, None, :, 1, None, None]
    dots = torch.lerp(dots[..., :-1], dots[..., 1:], across.expand(groups, looks, points, 8, 7))
    patch = torch.lerp(dots[..., :-1, :], dots[..., 1:, :], down.expand(groups, looks, points, 7, 7))
    return patch.flatten(1, 2).flatten(2).to(features.dtype)


def _within(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)


def mixer_step(
    x: Tensor,
    memory: Tensor,
    phase: Tensor,
    norm_weight: Tensor,
    widen: Tensor,
    widen_bias: Tensor,
    narrow: Tensor,
    narrow_bias: Tensor,
) -> Tensor:
    """One frame of the temporal half of a mixer block, x [N, C] to [N, C]; `memory` is updated in place.

    Takes the layer norm of x (scale norm_weight [C], no shift), applies two causal depthwise convolutions and adds the
    result to x. The first widens each channel to M (widen [3, M, C], widen_bias [M, C]); then GELU; the second (narrow
    [3, M, C]) is summed over M (narrow_bias [C] is summed already). Taps run from the oldest frame to this one (TAPIR,
    section 3.2).

    The N points are those of S lanes, as many for each, lane after lane. phase, int32 [S], is the parity of the number
    of each lane's frame, or IDLE for a lane without one: its memory does not change, and its result is of no use.

    memory [4, N, C] is two rings of two: the last two normalised inputs, the older at `phase`, and the second
    convolution's pending sums, with the one due on this frame at `phase` and the next frame's at 1 - `phase`.
    """
    weights = norm_weight, widen, widen_bias, narrow, narrow_bias
    if x.device.type == "cpu" and len(phase) == 1:  # without copies
        now = int(phase[0])
        if now == IDLE:
            return x.clone()
        past, sums = memory[:2], memory[2:]
        mixed, normed, next_, after = _temporal_mix(x, past[now], past[1 - now], *weights)
        mixed += sums[now]
        past[now] = normed
        sums[now] = after
        sums[1 - now] += next_
        return mixed
    parity, idle = ((phase == value).repeat_interleave(len(x) // len(phase))[:, None] for value in (1, IDLE))
    even, odd, due_even, due_odd = memory.unbind(0)
    older, newer = torch.where(parity, odd, even), torch.where(parity, even, odd)
    due, pending = torch.where(parity, due_odd, due_even), torch.where(parity, due_even, due_odd)
    mixed, normed, next_, after = _temporal_mix(x, older, newer, *weights)
    pending = pending + next_
    even, odd = torch.where(parity, even, normed), torch.where(parity, normed, odd)
    due_even, due_odd = torch.where(parity, pending, after), torch.where(parity, after, pending)
    memory.copy_(torch.where(idle, memory, torch.stack([even, odd, due_even, due_odd])))
    return mixed + due


def _temporal_mix(
    x: Tensor,
    older: Tensor,
    newer: Tensor,
    norm_weight: Tensor,
    widen: Tensor,
    widen_bias: Tensor,
    narrow: Tensor,
    narrow_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x plus what this frame adds to the sum due now, the normed x, and what it adds to the next two frames' sums."""
    normed = F.layer_norm(x, x.shape[-1:], norm_weight, None, NORM_EPSILON)
    wide = torch.addcmul(widen_bias[:, None], widen[2][:, None], normed)  # [M, N, C]
    wide.addcmul_(widen[1][:, None], newer).addcmul_(widen[0][:, None], older)
    wide = F.gelu(wide, approximate="tanh")
    now, next_, after = (_weighted_sum(wide, narrow[tap]) for tap in (2, 1, 0))
    return now.add_(narrow_bias).add_(x), normed, next_, after


def mixer_advance(
    x: Tensor,
    memory: Tensor,
    norm_weight: Tensor,
    widen: Tensor,
    widen_bias: Tensor,
    narrow: Tensor,
    narrow_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """`mixer_step` without a phase and without writing: returns its result and the next frame's memory [4, N, C].

    In this memory the older input and the sum due on this frame come first. For graphs that are exported.
    """
    older, newer, due, pending = memory.unbind(0)
    normed = F.layer_norm(x, x.shape[-1:], norm_weight, None, NORM_EPSILON)
    wide = F.gelu(
        widen_bias[:, None] + widen[2][:, None] * normed + widen[1][:, None] * newer + widen[0][:, None] * older,
        approximate="tanh",
    )
    now, next_, after = ((wide * narrow[tap][:, None]).sum(dim=0) for tap in (2, 1, 0))
    return x + now + narrow_bias + due, torch.stack([newer, normed, pending + next_, after])


def _weighted_sum(wide: Tensor, weight: Tensor) -> Tensor:
    """Sum over M of wide [M, N, C] times weight [M, C]."""
    total = wide[0] * weight[0]
    for values, weights in zip(wide[1:], weight[1:], strict=True):
        total.addcmul_(values, weights)
    return total

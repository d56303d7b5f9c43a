"""Every op in plain torch: the definition that a kernel must agree with, and the path taken without a GPU.

Refuses nothing and checks nothing: shapes are the caller's promise here, a launcher's duty in a kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH_RADIUS = 3
PATCH_SAMPLES = (2 * PATCH_RADIUS + 1) ** 2
TEMPORAL_TAPS = 3
NORM_EPSILON = 1e-5
UNIT_EPSILON = 1e-12
PEAK_RADIUS = 5.0
# Up to about so many cells a matrix product with the whole grid beats gathering 64 vectors a point (on a CPU).
DENSE_CELLS = 2048
DENSE_ROWS = 128  # with fewer, oneDNN is no faster


def l2_normalize(x: Tensor) -> Tensor:
    """x / |x| over channels, x [B, C, H, W]; a zero vector stays zero (TAPIR, section 3.1)."""
    return x * x.square().sum(dim=1, keepdim=True).clamp_min(UNIT_EPSILON).rsqrt()


def instance_norm_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU of each channel of x [B, C, H, W] normalised over its pixels, scaled by weight and shifted by bias [C]."""
    if x.device.type != "cpu":
        return F.relu(F.group_norm(x, x.shape[1], weight, bias, NORM_EPSILON), inplace=True)
    # On a CPU torch sums channels-last pixels one by one: wrong in the fifth digit, and a thousandth of a pixel later.
    single = x.float()
    centred = single - _pixel_mean(single)
    scale = weight[:, None, None] * (_pixel_mean(centred.square()) + NORM_EPSILON).rsqrt()
    return F.relu(torch.addcmul(bias[:, None, None], centred, scale), inplace=True).to(x.dtype)


def _pixel_mean(x: Tensor) -> Tensor:
    """Mean over pixels of x [B, C, H, W], [B, C, 1, 1], summed strip by strip so that no sum runs long."""
    batch, channels, height, width = x.shape
    strips = x.permute(0, 2, 3, 1).reshape(batch, height, width, channels).sum(dim=2)
    return strips.sum(dim=1)[:, :, None, None] / (height * width)


def dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., C] times weight [D, C], plus bias [D]: [..., D]."""
    if x.device.type != "cpu" or x.numel() < DENSE_ROWS * x.shape[-1]:
        return F.linear(x, weight, bias)
    # As a 1x1 convolution it is oneDNN that multiplies, up to twice as fast as the library torch has for products.
    pixels = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # [1, C, N, 1], channels-last
    return F.conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


def cost_volume(queries: Tensor, grid: Tensor) -> Tensor:
    """Dot products of every query [G, N, C] with every cell of grid [G, H, W, C]: [G, N, H, W] (TAPIR, section 3.1)."""
    height, width = grid.shape[1:3]
    return (queries @ grid.flatten(1, 2).mT).view(*queries.shape[:2], height, width)


def soft_argmax(heat: Tensor, temperature: float) -> Tensor:
    """Where each heat map [M, H, W] peaks, in cells [M, 2] (x, y).

    The softmax's mean position over the cells closer than five to its arg-max (TAPIR, section 3.1).
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


def local_correlation(features: Tensor, grid: Tensor, xy: Tensor) -> Tensor:
    """Dot products of features [G, N, C] with 7x7 samples of grid [G, H, W, C] around xy [G, N, 2]: [G, N, 49].

    Samples are bilinear at offsets -3..3, y outer and x inner; the grid is zero outside (TAPIR, section 3.2). Bilinear
    sampling is linear, so the products are taken on the 8x8 cells around and blended: 64 dots a point, in place of 49
    samples of four cells each.
    """
    height, width, channels = grid.shape[1:]
    groups, points = xy.shape[:2]
    corner = torch.floor(xy - 0.5)
    fraction = xy - 0.5 - corner  # [G, N, 2]
    reach = torch.arange(-PATCH_RADIUS, PATCH_RADIUS + 2, device=xy.device)  # [8]
    columns = corner[..., 0, None].long() + reach  # [G, N, 8]
    rows = corner[..., 1, None].long() + reach
    inside = _within(rows, height)[..., :, None] & _within(columns, width)[..., None, :]  # [G, N, 8, 8]
    cells = rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    cells = cells.flatten(2)  # [G, N, 64]
    table = grid.flatten(1, 2)  # [G, HW, C]
    if height * width <= DENSE_CELLS:
        dots = (features @ table.mT).gather(2, cells)
    else:
        start = torch.arange(groups, device=xy.device)[:, None, None] * (height * width)
        around = table.flatten(0, 1).index_select(0, (cells + start).flatten())  # [G N 64, C]
        dots = torch.bmm(
            around.view(groups * points, cells.shape[2], channels), features.reshape(groups * points, channels, 1)
        )
    dots = dots.view(groups, points, 8, 8).to(fraction.dtype) * inside  # blended in the precision of positions
    across, down = fraction[..., 0, None, None], fraction[..., 1, None, None]
    dots = torch.lerp(dots[..., :-1], dots[..., 1:], across.expand(groups, points, 8, 7))
    patch = torch.lerp(dots[..., :-1, :], dots[..., 1:, :], down.expand(groups, points, 7, 7))
    return patch.flatten(2).to(features.dtype)


def _within(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)


def mixer_step(
    x: Tensor, memory: Tensor, phase: int, widen: Tensor, widen_bias: Tensor, narrow: Tensor, narrow_bias: Tensor
) -> Tensor:
    """One frame of a mixer block's two causal depthwise convolutions, x [N, C] to [N, C]; `memory` is updated in place.

    Each channel c becomes M (widen [3, M, C], widen_bias [M, C]), GELU, a second depthwise convolution over those
    (narrow [3, M, C]) and the sum over M (narrow_bias [C], summed already). Taps run from the oldest frame to this one.

    memory [4, N, C] holds the last two inputs, at `phase` the older, and the second convolution's sums that are due:
    what is due now at `phase`, what is due on the next frame beside it. Both rings turn with `phase`, the parity of the
    frame's number.
    """
    past, due = memory[:2], memory[2:]
    wide = torch.addcmul(widen_bias[:, None], widen[2][:, None], x)  # [M, N, C]
    wide.addcmul_(widen[1][:, None], past[1 - phase]).addcmul_(widen[0][:, None], past[phase])
    wide = F.gelu(wide, approximate="tanh")
    now, next_, after = (_weighted_sum(wide, narrow[tap]) for tap in (2, 1, 0))
    mixed = now.add_(narrow_bias).add_(due[phase])
    past[phase] = x
    due[phase] = after
    due[1 - phase] += next_
    return mixed


def _weighted_sum(wide: Tensor, weight: Tensor) -> Tensor:
    """Sum over M of wide [M, N, C] times weight [M, C]."""
    total = wide[0] * weight[0]
    for values, weights in zip(wide[1:], weight[1:], strict=True):
        total.addcmul_(values, weights)
    return total

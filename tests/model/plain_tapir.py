"""Causal TAPIR once more, as plainly as it can be said: the judge of the streaming model where no public case is here.

A whole clip at once, straight from a public PyTorch state dict: padded convolutions over time, grid_sample, nothing
kept between frames. Shares no code with online_tapir or tapir_kernels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
BLOCKS_PER_GROUP = 2
STRIDES = (1, 2, 2, 1)


@dataclass(frozen=True)
class Plain:
    """The numbers that a state dict does not tell."""

    iterations: int
    pyramid_levels: int
    initial: tuple[int, int]  # height, width
    temperature: float


@dataclass(frozen=True)
class Stages:
    """The first guess, then every iteration at every resolution: S stages of T frames and N points."""

    tracks: Tensor  # [T, S, N, 2] pixels of the frame
    occlusion: Tensor  # [T, S, N] logits
    expected_distance: Tensor  # [T, S, N] logits


def track(state: State, plain: Plain, frames: Tensor, xy: Tensor, refinement: list[tuple[int, int]]) -> Stages:
    """Follows xy [N, 2], pixels of the first frame, through frames uint8 [T, H, W, 3], refined at each size in turn."""
    video = frames.permute(0, 3, 1, 2).float() / 255 * 2 - 1  # [T, 3, H, W]
    frame_size = (video.shape[2], video.shape[3])
    initial = plain.initial
    _, coarse = features(state, resized(video, initial))
    query = bilinear(coarse[:1], scaled(xy, frame_size, coarse.shape[2:])[None], "border")[0]  # [N, C]
    position, occlusion, distance = first_guess(state, plain, coarse, query)  # [T, N, 2], [T, N], [T, N]
    stages = [(position, occlusion, distance)]
    for size in refinement:
        fine, coarse = features(state, resized(video, size))
        pyramid = [fine, coarse]
        for _ in range(plain.pyramid_levels):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        described = [bilinear(g[:1], scaled(xy, frame_size, g.shape[2:])[None], "border")[0] for g in (fine, coarse)]
        running = torch.cat(described, dim=1).expand(len(video), -1, -1)  # [T, N, C]
        _, occlusion, distance = stages[0]
        for _ in range(plain.iterations):
            patches = [
                correlation(
                    running[..., : fine.shape[1]] if i == 0 else running[..., fine.shape[1] :], grid, position, initial
                )
                for i, grid in enumerate(pyramid)
            ]
            logits = torch.stack([occlusion, distance], dim=-1)
            seen = torch.cat([torch.zeros_like(position), logits, running, *patches], dim=-1)  # [T, N, D]
            change = mixer(state, seen)
            position = position + scaled(change[..., :2], size, initial)
            occlusion, distance = occlusion + change[..., 2], distance + change[..., 3]
            running = running + change[..., 4:]
            stages.append((position, occlusion, distance))
    positions, occlusions, distances = (torch.stack(parts, dim=1) for parts in zip(*stages, strict=True))
    return Stages(scaled(positions, initial, frame_size), occlusions, distances)


def refinement_sizes(initial: tuple[int, int], frame: tuple[int, int]) -> list[tuple[int, int]]:
    """Geometric steps from the initial size to the frame's, each rounded down to a multiple of 8."""
    count = math.ceil(max(math.log2(frame[0] / initial[0]), math.log2(frame[1] / initial[1]))) + 1
    if count <= 1:
        return [initial]
    steps = torch.linspace(0, 1, count, dtype=torch.float64).tolist()
    sides = [[a * (b / a) ** step for a, b in zip(initial, frame, strict=True)] for step in steps]
    return [(math.floor(height + 1e-6) // 8 * 8, math.floor(width + 1e-6) // 8 * 8) for height, width in sides]


def resized(video: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(video, size, mode="bilinear", align_corners=False)


def scaled(xy: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
    return torch.stack([xy[..., 0] * target[1] / source[1], xy[..., 1] * target[0] / source[0]], dim=-1)


def bilinear(grid: Tensor, xy: Tensor, outside: str) -> Tensor:
    """Samples [T, M, C] of grid [T, C, H, W] at xy [T, M, 2] cells."""
    height, width = grid.shape[2:]
    place = torch.stack([xy[..., 0] / width, xy[..., 1] / height], dim=-1) * 2 - 1
    return F.grid_sample(grid, place[:, None], "bilinear", outside, align_corners=False)[:, :, 0].mT


def features(state: State, video: Tensor) -> tuple[Tensor, Tensor]:
    """Unit features of video [T, 3, H, W]: at a quarter [T, C, H/4, W/4] and an eighth [T, C, H/8, W/8] of its size."""
    x = F.conv2d(F.pad(video, (2, 4, 2, 4)), state["resnet_torch.initial_conv.weight"], stride=2)
    outputs = []
    for group, stride in enumerate(STRIDES):
        for block in range(BLOCKS_PER_GROUP):
            name = f"resnet_torch.block_groups.{group}.blocks.{block}"
            x = residual(state, name, x, stride if block == 0 else 1)
        outputs.append(x)
    block = 0
    while (name := f"extra_convs.blocks.{block}") + ".conv.weight" in state:
        y = F.layer_norm(x.movedim(1, -1), x.shape[1:2], *affine(state, f"{name}.layer_norm"), 1e-5).movedim(-1, 1)
        wide = F.gelu(F.conv2d(y, *affine(state, f"{name}.conv"), padding=1), approximate="tanh")
        x = y + F.conv2d(wide, *affine(state, f"{name}.conv_1"), padding=1)
        block += 1
    return unit(outputs[1]), unit(x)


def residual(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    y = F.relu(F.instance_norm(x, None, None, *affine(state, f"{name}.bn_0"), eps=1e-5))
    if f"{name}.proj_conv.weight" in state:
        x = F.conv2d(y, state[f"{name}.proj_conv.weight"], stride=stride)
    y = F.pad(y, (1, 1, 1, 1) if stride == 1 else (0, 2, 0, 2))
    y = F.conv2d(y, state[f"{name}.conv_0.weight"], stride=stride)
    y = F.relu(F.instance_norm(y, None, None, *affine(state, f"{name}.bn_1"), eps=1e-5))
    return x + F.conv2d(y, state[f"{name}.conv_1.weight"], padding=1)


def affine(state: State, name: str) -> tuple[Tensor, Tensor]:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def unit(x: Tensor) -> Tensor:
    return x / torch.sqrt(torch.clamp((x * x).sum(dim=1, keepdim=True), min=1e-12))


def first_guess(state: State, plain: Plain, coarse: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions [T, N, 2] in initial pixels and both logits [T, N], from features [T, C, H, W] and queries [N, C]."""
    heads = "torch_cost_volume_track_mods"
    frames, _, height, width = coarse.shape
    cost = torch.einsum("nc,tchw->tnhw", query, coarse).reshape(-1, 1, height, width)  # [TN, 1, H, W]
    hidden = F.relu(F.conv2d(cost, *affine(state, f"{heads}.hid1"), padding=1))
    heat = F.conv2d(hidden, *affine(state, f"{heads}.hid2"), padding=1)
    weight = torch.softmax(heat.reshape(len(heat), -1) * plain.temperature, dim=1)  # [TN, HW]
    cell = torch.arange(height * width)
    centre = torch.stack([cell % width + 0.5, cell // width + 0.5], dim=1)  # [HW, 2]
    near = torch.cdist(centre[weight.argmax(dim=1)], centre) < 5  # [TN, HW]
    weight = weight * near
    position = (weight[..., None] * centre).sum(dim=1) / torch.clamp(weight.sum(dim=1, keepdim=True), min=1e-12)
    pooled = F.conv2d(F.pad(hidden, (0, 2, 0, 2)), *affine(state, f"{heads}.hid3"), stride=2).relu().mean(dim=(2, 3))
    logits = F.linear(F.linear(pooled, *affine(state, f"{heads}.hid4")).relu(), *affine(state, f"{heads}.occ_out"))
    occlusion, distance = logits.reshape(frames, -1, 2).unbind(dim=-1)
    return scaled(position, (height, width), plain.initial).reshape(frames, -1, 2), occlusion, distance


def correlation(running: Tensor, grid: Tensor, position: Tensor, initial: tuple[int, int]) -> Tensor:
    """Products [T, N, 49] of features [T, N, C] with the 7x7 samples of grid [T, C, H, W] around their positions."""
    frames, points = position.shape[:2]
    reach = torch.arange(-3.0, 4.0)
    down, across = torch.meshgrid(reach, reach, indexing="ij")
    offsets = torch.stack([across, down], dim=-1).reshape(49, 2)
    around = scaled(position, initial, tuple(grid.shape[2:]))[:, :, None] + offsets  # [T, N, 49, 2]
    samples = bilinear(grid, around.reshape(frames, points * 49, 2), "zeros").reshape(frames, points, 49, -1)
    return torch.einsum("tnc,tnsc->tns", running, samples)


def mixer(state: State, seen: Tensor) -> Tensor:
    """The change [T, N, 4 + C] for every frame of a clip, from seen [T, N, D]."""
    name = "torch_pips_mixer"
    x = F.linear(seen.transpose(0, 1), *affine(state, f"{name}.linear"))  # [N, T, C]
    width = x.shape[2]
    block = 0
    while (at := f"{name}.blocks.{block}") + ".layer_norm.weight" in state:
        y = F.layer_norm(x, (width,), state[f"{at}.layer_norm.weight"], None, 1e-5).mT  # [N, C, T]
        y = F.gelu(F.conv1d(F.pad(y, (2, 0)), *affine(state, f"{at}.mlp1_up"), groups=width), approximate="tanh")
        y = F.conv1d(F.pad(y, (2, 0)), *affine(state, f"{at}.mlp1_up_1"), groups=y.shape[1])  # [N, M C, T]
        x = x + y.unflatten(1, (width, -1)).sum(dim=2).mT
        y = F.layer_norm(x, (width,), state[f"{at}.layer_norm_1.weight"], None, 1e-5)
        y = F.gelu(F.linear(y, *affine(state, f"{at}.conv_channels_mixer.mlp2_up")), approximate="tanh")
        x = x + F.linear(y, *affine(state, f"{at}.conv_channels_mixer.mlp2_down"))
        block += 1
    x = F.layer_norm(x, (width,), state[f"{name}.layer_norm.weight"], None, 1e-5)
    return F.linear(x, *affine(state, f"{name}.linear_1")).transpose(0, 1)

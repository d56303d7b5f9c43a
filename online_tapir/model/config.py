"""The configuration of a causal TAPIR: one frozen record, and the presets that have weights."""

from dataclasses import dataclass, replace

from online_tapir.errors import ConfigError

Size = tuple[int, int]  # height, width

GROUP_STRIDES = (1, 2, 2, 1)
LOWRES_GROUP = 3
APART = 2  # cells from a query to its neighbours
NEIGHBOUR_OFFSETS = [(x, y) for y in (-APART, 0, APART) for x in (-APART, 0, APART) if x or y]
NEIGHBOURS = len(NEIGHBOUR_OFFSETS)
LOWRES_STRIDE = 8
TRUNKS = ("resnet", "lean")
# By the number of a lean trunk's grids, the ResNet groups that they correspond to: strides 4 and 8, or 2, 4 and 8.
LEAN_GROUPS = {2: (1, LOWRES_GROUP), 3: (0, 1, LOWRES_GROUP)}


@dataclass(frozen=True, slots=True)
class TapirConfig:
    """The architecture of a model. The defaults are causal BootsTAPIR as published (arXiv 2402.00847)."""

    name: str = "bootstapir"
    trunk: str = "resnet"  # or "lean": see model/lean.py
    stem_width: int = 64
    widths: tuple[int, int, int, int] = (64, 128, 256, 256)  # of ResNet groups, or of a lean trunk at strides 4 to 32
    grid_widths: tuple[int, ...] = ()  # lean trunk only: channels of its grids at strides 4 and 8, or 2, 4 and 8
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    described_by: tuple[int, ...] = (1, LOWRES_GROUP)  # groups whose features describe a point, coarsest last
    extra_convs: int = 5  # convolutional blocks after the backbone, on the coarse grid
    match_width: int = 16  # channels of the heat map's hidden layer; the occlusion branch has twice as many
    mixer_width: int = 512
    mixer_depth: int = 12
    mixer_expansion: int = 4
    iterations: int = 4  # refinements, with shared weights
    pyramid_levels: int = 1  # copies of the coarse grid, each half the size of the one before
    initial_resolution: tuple[int, int] = (256, 256)  # height, width
    softmax_temperature: float = 20.0
    visible_above: float = 0.5  # a point counts as visible if its certainty exceeds this
    peak_inputs: bool = False  # the mixer also sees where each correlation patch peaks
    motion_inputs: bool = False  # the mixer also sees how far the point moved since the last frame
    recent_inputs: bool = False  # matching and mixer also see the point's last appearance and position
    neighbour_grids: int = 0  # on so many of the finest grids the mixer also sees where a query's neighbours match

    def __post_init__(self) -> None:
        height, width = self.initial_resolution
        if height % LOWRES_STRIDE or width % LOWRES_STRIDE or min(height, width) < 2 * LOWRES_STRIDE:
            raise ConfigError(
                f"initial resolution {height}x{width} is not a multiple of {LOWRES_STRIDE} or is smaller than "
                f"{2 * LOWRES_STRIDE}; use 256x256, for example"
            )
        if self.trunk not in TRUNKS or (self.trunk == "lean") != (len(self.grid_widths) in LEAN_GROUPS):
            raise ConfigError(
                f"trunk {self.trunk[:20]!r} has grids of {str(self.grid_widths)[:40]} channels: give two or three for "
                f"a lean trunk, none for a resnet"
            )
        if self.trunk == "lean" and self.described_by != LEAN_GROUPS[len(self.grid_widths)]:
            raise ConfigError(
                f"a lean trunk describes points on all {len(self.grid_widths)} of its grids; set described_by to "
                f"{LEAN_GROUPS[len(self.grid_widths)]}"
            )
        if not self.described_by or sorted({*self.described_by, LOWRES_GROUP}) != list(self.described_by):
            raise ConfigError(
                f"described_by is {str(self.described_by)[:40]}; list groups from 0 to {LOWRES_GROUP} in "
                f"ascending order, ending with {LOWRES_GROUP}"
            )
        if self.iterations < 1:
            raise ConfigError(f"iterations is {self.iterations}; a model refines at least once")
        if not 0 <= self.neighbour_grids <= len(self.described_by):
            raise ConfigError(
                f"neighbour_grids is {self.neighbour_grids}; queries have neighbours on 0 to {len(self.described_by)}"
            )

    def scaled(self, width: float) -> "TapirConfig":
        """The same model with `width` times as many trunk, grid and mixer channels, rounded to multiples of 8."""

        def times(channels: int) -> int:
            return max(8, round(channels * width / 8) * 8)

        stem, one, two, three, four = (times(channels) for channels in (self.stem_width, *self.widths))
        grids = tuple(times(channels) for channels in self.grid_widths)
        return replace(
            self,
            stem_width=stem,
            widths=(one, two, three, four),
            grid_widths=grids,
            mixer_width=times(self.mixer_width),
        )

    @property
    def lowres_channels(self) -> int:
        """Channels of the coarse grid, on which points are matched."""
        return self.described_channels[-1]

    @property
    def feature_channels(self) -> int:
        """Channels of a point's running features, fine to coarse."""
        return sum(self.described_channels)

    @property
    def neighbour_channels(self) -> int:
        """Channels of one neighbour of a query, fine to coarse."""
        return sum(self.described_channels[: self.neighbour_grids])

    @property
    def query_channels(self) -> int:
        """Channels of what a point is refined by: its own features, then those of its neighbours."""
        return self.feature_channels + NEIGHBOURS * self.neighbour_channels

    @property
    def described_channels(self) -> list[int]:
        """Channels of each grid that describes a point, fine to coarse."""
        return list(self.grid_widths) or [self.widths[group] for group in self.described_by]

    @property
    def match_planes(self) -> int:
        """Maps that the first guess reads: correlations with query and last sight, closeness to the expected xy."""
        return 3 if self.recent_inputs else 1

    @property
    def grids(self) -> int:
        """Number of grids a point is correlated with: those that describe it and pooled copies of the coarse one."""
        return len(self.described_by) + self.pyramid_levels


PRESETS = {
    "small": TapirConfig(
        name="small",
        stem_width=32,
        widths=(32, 64, 128, 128),
        described_by=(0, 1, 3),
        extra_convs=0,
        mixer_width=192,
        mixer_depth=4,
        iterations=1,
        visible_above=0.3,
        peak_inputs=True,
        motion_inputs=True,
        recent_inputs=True,
        neighbour_grids=2,
    ),
    "bootstapir": TapirConfig(),
    "tapir": TapirConfig(name="tapir", extra_convs=0, pyramid_levels=0),
}

# A lean backbone (bench/weights/lean-small.md), not in the package.
LEAN_SMALL = TapirConfig(
    name="small",
    trunk="lean",
    stem_width=24,
    widths=(48, 96, 128, 128),
    grid_widths=(24, 64, 192),
    described_by=(0, 1, 3),
    extra_convs=0,
    mixer_width=192,
    mixer_depth=4,
    iterations=1,
    visible_above=0.3,
    peak_inputs=True,
    motion_inputs=True,
    recent_inputs=True,
)


def preset(name: str) -> TapirConfig:
    """The preset called `name`; ConfigError, listing the presets, if there is none."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]

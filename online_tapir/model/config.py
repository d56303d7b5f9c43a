"""What a causal TAPIR is made of: one frozen record, and the presets that have weights."""

from dataclasses import dataclass, replace

from online_tapir.errors import ConfigError

GROUP_STRIDES = (1, 2, 2, 1)
LOWRES_GROUP = 3
LOWRES_STRIDE = 8
TRUNKS = ("resnet", "lean")
LEAN_GROUPS = (1, LOWRES_GROUP)  # the ResNet's groups of strides 4 and 8, which a lean trunk's grids stand for


@dataclass(frozen=True, slots=True)
class TapirConfig:
    """The shape of a model. The defaults are causal BootsTAPIR as published (arXiv 2402.00847)."""

    name: str = "bootstapir"
    trunk: str = "resnet"  # or "lean": see model/lean.py
    stem_width: int = 64
    widths: tuple[int, int, int, int] = (64, 128, 256, 256)  # of a ResNet's groups; of a lean trunk at strides 4 to 32
    grid_widths: tuple[int, ...] = ()  # of a lean trunk: channels of its grids at strides 4 and 8
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    described_by: tuple[int, ...] = (1, LOWRES_GROUP)  # groups whose features describe a point, the coarse one last
    extra_convs: int = 5  # convolutional blocks after the backbone, on the coarse grid
    match_width: int = 16  # channels of the heat map's hidden layer; the occlusion branch has twice as many
    mixer_width: int = 512
    mixer_depth: int = 12
    mixer_expansion: int = 4
    iterations: int = 4  # refinements, with shared weights
    pyramid_levels: int = 1  # copies of the coarse grid, each half the size of the one before
    initial_resolution: tuple[int, int] = (256, 256)  # height, width
    softmax_temperature: float = 20.0
    visible_above: float = 0.5  # a point is visible where it is seen, and its position right, likelier than this
    peak_inputs: bool = False  # the mixer sees where each correlation patch peaks, too
    motion_inputs: bool = False  # the mixer sees how far the point moved since the last frame, too
    recent_inputs: bool = False  # matching and mixer see what the point looked like and where it was last seen, too

    def __post_init__(self) -> None:
        height, width = self.initial_resolution
        if height % LOWRES_STRIDE or width % LOWRES_STRIDE or min(height, width) < 2 * LOWRES_STRIDE:
            raise ConfigError(
                f"initial resolution {height}x{width} is not a multiple of {LOWRES_STRIDE} of at least "
                f"{2 * LOWRES_STRIDE}; choose one that is, 256x256 for instance"
            )
        if self.trunk not in TRUNKS or (self.trunk == "lean") != (len(self.grid_widths) == 2):
            raise ConfigError(
                f"trunk {self.trunk[:20]!r} has grids of {str(self.grid_widths)[:40]} channels: give two for a lean "
                f"trunk, none for a resnet"
            )
        if self.trunk == "lean" and self.described_by != LEAN_GROUPS:
            raise ConfigError(f"a lean trunk describes points at strides 4 and 8: described_by is {LEAN_GROUPS}")
        if not self.described_by or sorted({*self.described_by, LOWRES_GROUP}) != list(self.described_by):
            raise ConfigError(
                f"a point is described by groups {str(self.described_by)[:40]}; name some of 0 to {LOWRES_GROUP} in "
                f"their order, the last of them {LOWRES_GROUP}"
            )
        if self.iterations < 1:
            raise ConfigError(f"{self.iterations} iterations asked for; a model refines at least once")

    def scaled(self, width: float) -> "TapirConfig":
        """The same model with `width` times as many channels everywhere, to multiples of 8."""

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
    def described_channels(self) -> list[int]:
        """Channels of each grid that describes a point, fine to coarse."""
        return list(self.grid_widths) or [self.widths[group] for group in self.described_by]

    @property
    def match_planes(self) -> int:
        """Maps the first guess is read from: correlations with query and last sight, nearness to the expected place."""
        return 3 if self.recent_inputs else 1

    @property
    def grids(self) -> int:
        """Grids that a point is correlated with: those that describe it and the pooled copies of the coarse one."""
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
        visible_above=0.4,
        peak_inputs=True,
        motion_inputs=True,
        recent_inputs=True,
    ),
    "bootstapir": TapirConfig(),
    "tapir": TapirConfig(name="tapir", extra_convs=0, pyramid_levels=0),
}

# The second `small`, in training: its weights replace those of the first once they are better.
LEAN_SMALL = TapirConfig(
    name="small",
    trunk="lean",
    stem_width=24,
    widths=(48, 96, 128, 128),
    grid_widths=(64, 192),
    extra_convs=0,
    mixer_width=192,
    mixer_depth=4,
    iterations=1,
    visible_above=0.4,
    peak_inputs=True,
    motion_inputs=True,
    recent_inputs=True,
)


def preset(name: str) -> TapirConfig:
    """The configuration called `name`; ConfigError lists those there are."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]

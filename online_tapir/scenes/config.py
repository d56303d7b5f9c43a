"""Settings of synthetic clips: one frozen dataclass, validated once."""

from dataclasses import dataclass, replace

from online_tapir.errors import ConfigError

Range = tuple[float, float]


@dataclass(frozen=True)
class SceneConfig:
    """Lengths are fractions of the frame's shorter side, times are in frames, probabilities are per clip by default.

    Speed limits are rarely reached: speeds are limit * u ** speed_tail with u uniform in [0, 1]. Raises ConfigError for
    invalid values.
    """

    height: int = 128  # pixels
    width: int = 128
    frames: int = 6
    points: int = 40
    sprites: tuple[int, int] = (2, 8)  # fewest and most layers in front of the background
    sprite_radius: Range = (0.07, 0.45)  # half the extent of a sprite at scale 1
    sprite_points: float = 0.5  # share of the points on sprites; the rest are on the background
    hidden_points: float = 0.5  # share of the points that are occluded on some frame, if a scene has enough
    plain_points: float = 0.15  # chance of a textureless pixel to get a point, relative to a textured one

    still: bool = False  # neither layers nor the camera move
    still_layer: float = 0.15  # chance that a layer does not move
    still_camera: float = 0.4
    turned: float = 0.0  # chance that the whole scene turns by any angle and grows or shrinks by up to max_growth
    max_growth: float = 4.0
    max_speed: float = 40 / 256  # of a sprite, per frame; the background's limit is half of it
    max_camera_speed: float = 20 / 256
    speed_tail: float = 2.2
    max_shake: float = 0.012  # amplitude of camera shake
    max_turn: float = 0.25  # rotation of a layer, radians per frame
    max_scale: float = 2.0  # the scale of a sprite stays within [1 / max_scale, max_scale]
    max_shear: float = 0.25
    max_perspective: float = 0.2  # relative change of depth from a sprite's centre to its corner
    elastic: float = 0.4  # chance of each layer to ripple
    max_ripple: float = 0.35  # Lipschitz constant of a ripple

    shadows: float = 0.4
    exposure: float = 0.5  # drift of exposure and white balance
    motion_blur: float = 0.2
    defocus: float = 0.25
    noise: float = 0.7  # of the sensor
    max_noise: float = 0.06  # standard deviation of its shot noise at white, for values in [0, 1]
    jpeg: float = 0.35
    stutter: float = 0.3  # repeated and dropped frames
    pace: Range = (1.0, 1.0)  # time per frame: points change as much in a fast short clip as in a slow long one

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 16 or self.frames < 1 or self.points < 1:
            asked = f"{self.points} points on {self.frames} frames of {self.width}x{self.height}"
            raise ConfigError(f"a scene of {asked} is too small; the minimum is 1 point on 1 frame of 16x16")
        if not 0 <= self.sprites[0] <= self.sprites[1] <= 200:
            raise ConfigError(f"sprites={self.sprites} is not a range; give the fewest and the most, from 0 to 200")
        if not 0 < self.sprite_radius[0] <= self.sprite_radius[1]:
            raise ConfigError(f"sprite_radius={self.sprite_radius} is not a range; give the least and most, above 0")
        if not 0 <= self.max_ripple < 0.4:
            raise ConfigError(f"max_ripple={self.max_ripple} is outside [0, 0.4), where the truth is computable")
        if not 0 <= self.max_perspective <= 0.4:
            raise ConfigError(f"max_perspective={self.max_perspective} is outside [0, 0.4], where layers stay in front")
        if not 0 < self.pace[0] <= self.pace[1]:
            raise ConfigError(f"pace={self.pace} is not a range; give the slowest and the fastest, above 0")
        if self.max_growth < 1:
            raise ConfigError(f"max_growth={self.max_growth} is below 1; give the largest, its inverse is the smallest")
        if self.max_scale < 1:
            raise ConfigError(f"max_scale={self.max_scale} is below 1; give the largest, its inverse is the smallest")

    def clean(self) -> "SceneConfig":
        """The same settings with a perfect camera and no shadows: only geometry changes how a point looks."""
        return replace(self, shadows=0.0, exposure=0.0, motion_blur=0.0, defocus=0.0, noise=0.0, jpeg=0.0, stutter=0.0)

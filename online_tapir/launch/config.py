"""All options of a live run: each field is a flag; its name, default, help and range are defined only here.

The groups are the panels of `online-tapir --help`. Every flag can also stand in a TOML file (`--config`) or in an
environment variable (`ONLINE_TAPIR_` and the flag's name).
"""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from online_tapir.control.protocol import DEFAULT_ADDRESS as CONTROL_ADDRESS
from online_tapir.control.protocol import LONGEST_HEARTBEAT_S, SHORTEST_HEARTBEAT_S
from online_tapir.drawing.look import DEFAULT_COLOR, DEFAULT_MEMORY, LIVE_FPS, LIVE_SIDE, WEB_FPS, WEB_SIDE, ColorMode
from online_tapir.files import expanded
from online_tapir.limits import DEFAULT_MAX_POINTS, DEFAULT_WINDOW, MOST_POINTS, MOST_WINDOW
from online_tapir.recording.codecs import DEFAULT_CODEC, CodecName
from online_tapir.wire.messages import DEFAULT_ADDRESS

Count = Number(gte=1)
DEFAULT_POINTS = 64  # corners that are tracked by default


def at_home(config: "LiveConfig") -> "LiveConfig":
    """The configuration with `~` in its paths as the user's folder: shells leave it alone after a `=`, files always."""
    groups: dict[str, Any] = {}
    for group in (part.name for part in fields(config)):
        found = getattr(config, group)
        if is_dataclass(found) and not isinstance(found, type):
            settings = {setting.name: getattr(found, setting.name) for setting in fields(found)}
            paths = {name: expanded(value) for name, value in settings.items() if isinstance(value, Path)}
            groups[group] = replace(found, **paths)
    return replace(config, **groups)


def _panel(name: str, place: int) -> Parameter:
    return Parameter(name="*", group=Group(name, sort_key=place))


@_panel("Source", 1)
@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """Where frames come from."""

    camera: Annotated[
        str,
        Parameter(
            help="Camera index, device path, video file, image folder, rtsp:// http:// tcp:// udp:// address, "
            "or `demo`: a rendered scene with known ground truth."
        ),
    ] = "0"
    name: Annotated[
        str | None, Parameter(help="What this camera is called, in topics and metrics. [default: made from --camera]")
    ] = None
    size: Annotated[str | None, Parameter(help="Frame size to ask the camera for, as 1280x720.")] = None
    fps: Annotated[
        float | None,
        Parameter(help="Frame rate to ask the camera for; 0 runs the demo unpaced.", validator=Number(gte=0)),
    ] = None
    realtime: Annotated[bool, Parameter(help="Play a recording at its own rate.", negative=())] = False
    loop: Annotated[bool, Parameter(help="Play a recording again and again.", negative=())] = False
    wait: Annotated[
        bool | None,
        Parameter(help="Wait for a source that cannot be opened yet. [default: for network addresses]"),
    ] = None
    reconnect: Annotated[bool, Parameter(help="Open a live source again when it fails, and keep the points.")] = True
    stall_timeout: Annotated[
        float, Parameter(help="Seconds without a frame after which a live source has failed.", validator=Number(gt=0))
    ] = 5.0
    reconnect_attempts: Annotated[
        int | None,
        Parameter(help="Give up after this many failed reconnects in a row. [default: never]", validator=Number(gte=0)),
    ] = None
    reconnect_wait: Annotated[
        float,
        Parameter(help="Longest wait between two attempts, in seconds; the first is 0.5.", validator=Number(gte=0.5)),
    ] = 30.0
    frames: Annotated[int | None, Parameter(help="Stop after this many frames.", validator=Count)] = None


@_panel("Points", 2)
@dataclass(frozen=True, slots=True, kw_only=True)
class PointsConfig:
    """Which points are tracked."""

    points: Annotated[
        str | None,
        Parameter(
            help="What to track: grid:12, grid:16x9, auto:64, random:64, pairs '120,80 300,200', or a CSV file. "
            f"[default: auto:{DEFAULT_POINTS}]"
        ),
    ] = None
    mask: Annotated[
        Path | None,
        Parameter(help="Track a grid of points inside an object of this mask (image of ids, or .npy) instead."),
    ] = None
    mask_id: Annotated[int, Parameter(help="Which object of the mask.", validator=Count)] = 1
    templates: Annotated[
        Path | None,
        Parameter(
            help="Search for the named points of this file of `online-tapir templates save` until each is found; no "
            "others are placed unless --points or --mask says so."
        ),
    ] = None
    replenish: Annotated[bool, Parameter(help="Replace lost points with new ones, to keep their number.")] = False
    max_points: Annotated[int, Parameter(help="Most points at once.", validator=Number(gte=1, lte=MOST_POINTS))] = (
        DEFAULT_MAX_POINTS
    )
    window_frames: Annotated[
        int,
        Parameter(help="Past frames on which points can still be added.", validator=Number(gte=1, lte=MOST_WINDOW)),
    ] = DEFAULT_WINDOW
    objects: Annotated[
        Literal["off", "similarity", "affine", "homography"],
        Parameter(
            help="How a group of points moves as a thing: its box is carried along, points that do not follow it are "
            "doubtful, hidden ones are placed by it. Groups come with --points FILE.csv or `control label`."
        ),
    ] = "similarity"
    calibration: Annotated[
        Path | None,
        Parameter(
            help="The camera's calibration, a file of OpenCV's (YAML, XML, JSON): objects are followed without the "
            "lens's distortion."
        ),
    ] = None
    object_size: Annotated[
        tuple[str, ...],
        Parameter(
            help="GROUP=WIDTHxHEIGHT in millimetres: a flat group whose first four points are the corners of such a "
            "rectangle, clockwise from the top left, has a pose. Needs --calibration.",
            negative=(),
        ),
    ] = ()
    inspect: Annotated[
        int | None,
        Parameter(
            help="Show what the model sees of this point (ids count from 0): heat map, correlations, refinements.",
            validator=Number(gte=0),
        ),
    ] = None


@_panel("Model", 3)
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model tracks, and where it runs."""

    model: Annotated[str, Parameter(help="Preset (small, bootstapir, tapir) or a .safetensors file.")] = "small"
    weights: Annotated[Path | None, Parameter(help="Weights to use instead of the preset's own.")] = None
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        Parameter(help="Number format to compute in. The 16-bit formats are faster on a GPU but drift a little."),
    ] = "float32"
    iterations: Annotated[
        int | None,
        Parameter(
            help="Refinements per frame, 1 to 4: fewer are faster but less accurate. [default: as trained]",
            validator=Number(gte=1, lte=4),
        ),
    ] = None
    visible_above: Annotated[
        float | None,
        Parameter(
            help="Certainty above which a point counts as visible, 0 to 1: lower shows more, and more wrong ones. "
            "[default: 0.3 for small, 0.5 for the public models]",
            validator=Number(gte=0, lt=1),
        ),
    ] = None
    resolution: Annotated[
        str | None,
        Parameter(
            help="Resolution to refine points at, for the public models: 512x384 (multiples of 8), or `frame`: in "
            "steps up to the frame's own size. For small a larger --input is better and faster. "
            "[default: the input's]"
        ),
    ] = None
    input: Annotated[
        str,
        Parameter(
            help="Size that frames are resized to before points are matched: 512x288, or its longer side with the "
            "frame's own aspect: 384. More pixels are more accurate and take more time. auto: what keeps up with the "
            "camera, up to 512 and the frame's own size; 256x256 for the public models."
        ),
    ] = "auto"
    engine: Annotated[
        Literal["auto", "torch", "openvino", "onnxruntime"],
        Parameter(
            help="What computes the model on a CPU. auto: openvino where it is installed and fits; `online-tapir info` "
            "says which and why. The first run of a model at a size prepares it for some seconds."
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "int8"],
        Parameter(
            help="Of an engine's encoder. auto: what this processor is fastest at, for small; float32 for the public "
            "models. int8 is calibrated with `online-tapir quantize`, for small in the package."
        ),
    ] = "auto"
    threads: Annotated[
        int | None,
        Parameter(
            help="CPU threads of the model, at most as many as there are CPUs. [default: torch's choice; with --flow "
            "on a live source, one less than there are CPUs]",
            validator=Count,
        ),
    ] = None
    flow: Annotated[
        Literal["auto", "on", "off"],
        Parameter(
            help="Sparse optical flow between the model's answers: every frame is answered at once, however slow the "
            "model is. auto: for live sources. on: for recordings, too; unless played with --realtime, these wait for "
            "the model. off: only the model's own answers."
        ),
    ] = "auto"
    require_kernels: Annotated[bool, Parameter(help="Refuse a device without the custom kernels.", negative=())] = False
    pipeline: Annotated[
        bool,
        Parameter(
            help="On a GPU, upload the next frame while this one is computed; --no-pipeline waits, so that no result "
            "is a frame late."
        ),
    ] = True


@_panel("Viewer", 4)
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerConfig:
    """How people watch."""

    rerun: Annotated[
        str | None,
        Parameter(
            help="spawn, serve, connect=URL, save=FILE.rrd or off. [default: spawn with a display, serve without, off "
            "with --window or --web]"
        ),
    ] = None
    rerun_fps: Annotated[
        float | None,
        Parameter(
            help=f"Most pictures a second to send to Rerun. [default: {LIVE_FPS:g} for a window, {WEB_FPS:g} for a "
            "browser, all in a file]",
            validator=Number(gt=0),
        ),
    ] = None
    rerun_size: Annotated[
        int | None,
        Parameter(
            help="Longer side of these pictures in pixels, at most; points keep their positions. "
            f"[default: {LIVE_SIDE}, {WEB_SIDE} in a browser, all in a file]",
            validator=Number(gte=16),
        ),
    ] = None
    rerun_memory: Annotated[
        str,
        Parameter(help="Memory limit of a viewer or server started here; the oldest frames go first: 500MB, 25%."),
    ] = DEFAULT_MEMORY
    color: Annotated[
        ColorMode,
        Parameter(
            help="What the colours of points mean: the row of the picture they started on, their identity, how likely "
            "they are visible, how likely their position is off, or how fast they move."
        ),
    ] = DEFAULT_COLOR
    window: Annotated[
        bool, Parameter(help="Show the picture in a window to click in; h lists the keys.", negative=())
    ] = False
    web: Annotated[bool, Parameter(help="Serve a page to watch and to click in, from a browser.", negative=())] = False
    web_address: Annotated[
        str | None,
        Parameter(
            help="Serve it on this port, or HOST:PORT; other machines then need the link that is printed. "
            "[default: 127.0.0.1, the first free port from 8080 on]"
        ),
    ] = None
    web_view_only: Annotated[bool, Parameter(help="Nobody may change the run from the page.", negative=())] = False
    web_cert: Annotated[Path | None, Parameter(help="Serve it over TLS: the certificate, a PEM file.")] = None
    web_key: Annotated[Path | None, Parameter(help="The certificate's private key, a PEM file.")] = None
    foxglove: Annotated[
        str | None,
        Parameter(help="Serve pictures and points to Foxglove on this port, 8765 for instance, or HOST:PORT."),
    ] = None
    quiet: Annotated[bool, Parameter(help="No status line.", negative=())] = False
    json_log: Annotated[bool, Parameter(help="One JSON object a second instead of the status line.", negative=())] = (
        False
    )


@_panel("Output", 5)
@dataclass(frozen=True, slots=True, kw_only=True)
class OutputConfig:
    """What is written to disk."""

    record: Annotated[
        Path | None,
        Parameter(help="New folder to write the frames and their tracks into, for `online-tapir replay`."),
    ] = None
    recordings: Annotated[
        Path,
        Parameter(help="Folder for recordings that are begun on request: `online-tapir control record on`, the page."),
    ] = Path("recordings")
    record_video: Annotated[
        CodecName,
        Parameter(
            help="How the frames are kept: huffyuv loses no bit, mjpeg is smaller by far but changes the picture."
        ),
    ] = DEFAULT_CODEC
    save_video: Annotated[
        Path | None, Parameter(help="Video to write the frames into with the tracks painted on them: FILE.mp4.")
    ] = None
    save_csv: Annotated[
        Path | None,
        Parameter(help="Table to write the points into at the end, in DeepLabCut's layout: FILE.csv or FILE.parquet."),
    ] = None
    mcap: Annotated[
        Path | None, Parameter(help="File to write pictures and points into, for Foxglove and Rerun: FILE.mcap.")
    ] = None
    save_state: Annotated[
        Path | None,
        Parameter(help="File to save the points to when the run is over, and on `online-tapir control save`."),
    ] = None
    save_state_every: Annotated[
        float | None,
        Parameter(help="Also save them every this many seconds, in case the power fails.", validator=Number(gte=0.1)),
    ] = None
    resume: Annotated[
        Path | None,
        Parameter(
            help="Continue with the points that --save-state saved to this file; no others are placed unless --points "
            "or --mask says so. If both name the same file, the first run starts without it and later ones place no "
            "others: the same command can be started again and again."
        ),
    ] = None
    overwrite: Annotated[
        bool,
        Parameter(
            help="Replace files that --save-video, --save-csv, --mcap and --rerun save= would write to.", negative=()
        ),
    ] = False


@_panel("Network", 6)
@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """How programs read and control the run."""

    publish: Annotated[str, Parameter(help="ZeroMQ address to publish on, or `off`.")] = DEFAULT_ADDRESS
    heartbeat: Annotated[
        float,
        Parameter(
            help="Seconds between heartbeats, which are published while no frame arrives.",
            validator=Number(gte=SHORTEST_HEARTBEAT_S, lte=LONGEST_HEARTBEAT_S),
        ),
    ] = 1.0
    control: Annotated[
        str | None,
        Parameter(
            help="ZeroMQ address to take control requests at (see `online-tapir control`), or `off`. "
            f"[default: {CONTROL_ADDRESS}, or off where that is taken]"
        ),
    ] = None
    keys: Annotated[
        Path | None,
        Parameter(help="Folder of keys (see `online-tapir keys`): encrypt, and admit only trusted keys."),
    ] = None
    insecure: Annotated[
        bool, Parameter(help="Let other machines read and control without keys, at open addresses.", negative=())
    ] = False
    metrics: Annotated[
        str | None,
        Parameter(help="Serve Prometheus metrics on this port of this machine, or on HOST:PORT. [default: off]"),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class LiveConfig:
    """Track a camera, publish the tracks, show them."""

    source: SourceConfig = field(default_factory=SourceConfig)
    points: PointsConfig = field(default_factory=PointsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    viewer: ViewerConfig = field(default_factory=ViewerConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    epoch: Annotated[int, Parameter(parse=False)] = 0  # of the camera's placement in a fleet; no flag

"""What a live run can be told: each field is a flag; its name, default, help and range live here and nowhere else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from online_tapir.control.protocol import DEFAULT_ADDRESS as CONTROL_ADDRESS
from online_tapir.drawing.look import DEFAULT_COLOR, DEFAULT_MEMORY, LIVE_FPS, LIVE_SIDE, ColorMode
from online_tapir.sinks.zmq import DEFAULT_ADDRESS

Count = Number(gte=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveConfig:
    """Track a camera, publish the tracks, show them."""

    camera: Annotated[
        str,
        Parameter(
            help="Camera index, device path, video file, image folder, rtsp:// http:// tcp:// udp:// address, "
            "or `demo`: a rendered scene that knows its own truth."
        ),
    ] = "0"
    points: Annotated[
        str | None,
        Parameter(
            help="What to follow: grid:12, grid:16x9, auto:64, random:64, pairs '120,80 300,200', or a CSV file. "
            "[default: auto:64]"
        ),
    ] = None
    mask: Annotated[
        Path | None,
        Parameter(help="Follow a grid of points inside an object of this mask (image of ids, or .npy) instead."),
    ] = None
    mask_id: Annotated[int, Parameter(help="Which object of the mask.", validator=Number(gte=1))] = 1
    replenish: Annotated[bool, Parameter(help="Put new points where lost ones leave, so that their number holds.")] = (
        False
    )
    model: Annotated[str, Parameter(help="Preset (small, bootstapir, tapir) or a .safetensors file.")] = "small"
    weights: Annotated[Path | None, Parameter(help="Weights to use in place of the preset's own.")] = None
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        Parameter(help="What to compute in. The halves are faster on a GPU, and drift a little."),
    ] = "float32"
    iterations: Annotated[
        int | None,
        Parameter(
            help="Refinements a frame, 1 to 4: fewer are faster, less exact. [default: as many as it was trained for]",
            validator=Number(gte=1, lte=4),
        ),
    ] = None
    resolution: Annotated[
        str | None,
        Parameter(
            help="Where points are refined: 512x384, multiples of 8, or `frame`: in steps up to the frame's own size. "
            "[default: at the model's own 256x256]"
        ),
    ] = None
    max_points: Annotated[int, Parameter(help="Room for this many points.", validator=Number(gte=1, lte=65536))] = 256
    window_frames: Annotated[
        int,
        Parameter(help="Frames kept so that a point may be named on one of them.", validator=Number(gte=1, lte=1024)),
    ] = 32
    size: Annotated[str | None, Parameter(help="Picture size to ask of the camera, as 1280x720.")] = None
    fps: Annotated[float | None, Parameter(help="Frame rate to ask of the camera; 0 runs the demo unpaced.")] = None
    realtime: Annotated[bool, Parameter(help="Play a recording at its own rate.", negative=())] = False
    reconnect: Annotated[bool, Parameter(help="Open a camera or stream again when it fails, and keep the points.")] = (
        True
    )
    stall_timeout: Annotated[
        float, Parameter(help="Seconds without a frame after which a live source has failed.", validator=Number(gt=0))
    ] = 5.0
    reconnect_attempts: Annotated[
        int | None,
        Parameter(help="Give up after this many openings in a row in vain. [default: never]", validator=Number(gte=0)),
    ] = None
    reconnect_wait: Annotated[
        float,
        Parameter(help="Longest wait between two attempts, in seconds; the first is 0.5.", validator=Number(gte=0.5)),
    ] = 30.0
    frames: Annotated[int | None, Parameter(help="Stop after this many frames.", validator=Count)] = None
    publish: Annotated[str, Parameter(help="ZeroMQ address to publish on, or `off`.")] = DEFAULT_ADDRESS
    heartbeat: Annotated[
        float,
        Parameter(
            help="Seconds between the heartbeats that are published while no frame comes.",
            validator=Number(gte=0.1, lte=60),
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
        Parameter(
            help="Folder of keys (see `online-tapir keys`): encrypt, and let in only those whose keys are there."
        ),
    ] = None
    insecure: Annotated[
        bool, Parameter(help="Let other machines read and control without keys, where addresses are open.", negative=())
    ] = False
    metrics: Annotated[
        str | None,
        Parameter(help="Serve Prometheus metrics at this port of this machine, or at HOST:PORT. [default: off]"),
    ] = None
    rerun: Annotated[
        str | None,
        Parameter(
            help="spawn, serve, connect=URL, save=FILE.rrd or off. [default: spawn with a display, serve without, off "
            "beside --window]"
        ),
    ] = None
    rerun_fps: Annotated[
        float | None,
        Parameter(
            help=f"Pictures a second that Rerun gets at most. [default: {LIVE_FPS:g} for a viewer, all in a file]",
            validator=Number(gt=0),
        ),
    ] = None
    rerun_size: Annotated[
        int | None,
        Parameter(
            help="Pixels of their longer side at most; points stay where they are. "
            f"[default: {LIVE_SIDE} for a viewer, all in a file]",
            validator=Number(gte=16),
        ),
    ] = None
    rerun_memory: Annotated[
        str, Parameter(help="What a viewer and a server started here may each hold; the oldest goes first: 500MB, 25%.")
    ] = DEFAULT_MEMORY
    color: Annotated[
        ColorMode,
        Parameter(
            help="What the colours of points tell: the row of the picture they began on, their identity, how likely "
            "they are seen, how likely their position is off, or how fast they move."
        ),
    ] = DEFAULT_COLOR
    inspect: Annotated[
        int | None,
        Parameter(
            help="Show what the model sees of this point (ids count from 0): heat map, correlations, refinements.",
            validator=Number(gte=0),
        ),
    ] = None
    window: Annotated[
        bool, Parameter(help="Show the picture in a window to click in: h in it tells the keys.", negative=())
    ] = False
    record: Annotated[
        Path | None,
        Parameter(help="New folder to write the frames and their tracks into, for `online-tapir replay`."),
    ] = None
    record_video: Annotated[
        Literal["huffyuv", "ffv1", "mjpeg"],
        Parameter(
            help="How the frames are kept. huffyuv and ffv1 lose no bit; ffv1 is smaller by a quarter but takes ten "
            "times as long, mjpeg is smaller by far but changes the picture."
        ),
    ] = "huffyuv"
    save_video: Annotated[
        Path | None, Parameter(help="Video to write the frames into with the tracks painted on them: FILE.mp4.")
    ] = None
    save_state: Annotated[
        Path | None,
        Parameter(help="File to save the points to when the run is over, and on `online-tapir control save`."),
    ] = None
    save_state_every: Annotated[
        float | None,
        Parameter(help="Save them every so many seconds, too, in case the power fails.", validator=Number(gte=0.1)),
    ] = None
    resume: Annotated[
        Path | None,
        Parameter(
            help="Go on with the points that --save-state has saved to this file; no others are placed unless --points "
            "or --mask says so. Where both name the same file, the first run begins without one."
        ),
    ] = None
    threads: Annotated[
        int | None, Parameter(help="CPU threads of the model. [default: torch's choice]", validator=Count)
    ] = None
    require_kernels: Annotated[
        bool, Parameter(help="Refuse a device on which the plain operations run in place of the kernels.", negative=())
    ] = False
    pipeline: Annotated[
        bool,
        Parameter(
            help="On a GPU, send up a frame that is there already while another is computed; --no-pipeline waits, "
            "so that no answer is a frame late."
        ),
    ] = True
    quiet: Annotated[bool, Parameter(help="No status line.", negative=())] = False
    json_log: Annotated[bool, Parameter(help="One JSON object a second in place of the status line.", negative=())] = (
        False
    )

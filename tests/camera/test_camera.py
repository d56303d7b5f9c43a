import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from online_tapir.camera import CameraInfo, Capture, SyntheticCamera, list_cameras, open_camera
from online_tapir.camera.base import topic_name
from online_tapir.camera.opencv import host, source_name, without_secrets
from online_tapir.clock import StepClock
from online_tapir.errors import CameraError, ConfigError, FrameError
from online_tapir.mailbox import Closed
from online_tapir.records import Frame

LONG = 30.0  # seconds; only a broken capture waits so long
COLORS = [(250, 20, 30), (20, 240, 30), (30, 20, 250), (240, 240, 20), (20, 20, 20)]  # RGB


def flat(color: tuple[int, int, int], width: int = 49, height: int = 33) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8), (height, width, 3)).copy()


def write_video(path: Path, fps: float = 25.0, size: tuple[int, int] = (64, 48)) -> Path:
    codec = {".mp4": "mp4v", ".avi": "MJPG"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    for color in COLORS:
        writer.write(flat(color, *size)[..., ::-1])
    writer.release()
    return path


def take_all(capture: Capture) -> list[Frame]:
    frames = []
    try:
        while True:
            frames.append(capture.mailbox.take(LONG))
    except Closed:
        return frames


def colors_of(images: list[np.ndarray]) -> np.ndarray:
    return np.array([image.reshape(-1, 3).mean(axis=0) for image in images])


def nobody() -> str:
    """A host:port of loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def read_all(camera) -> list[np.ndarray]:
    images = []
    while (image := camera.read()) is not None:
        images.append(image)
    return images


def test_a_recording_is_read_frame_by_frame_and_nothing_is_dropped() -> None:
    with Capture(SyntheticCamera([flat((i, i, i)) for i in range(50)])) as capture:
        frames = take_all(capture)
    assert [frame.id for frame in frames] == list(range(50))
    assert [frame.rgb[0, 0, 0] for frame in frames] == list(range(50))
    assert capture.dropped == 0


def test_a_live_camera_keeps_the_newest_and_numbers_what_it_drops() -> None:
    all_delivered = threading.Event()

    def frames() -> Iterator[np.ndarray]:
        yield from (flat((i, i, i)) for i in range(10))
        all_delivered.set()

    with Capture(SyntheticCamera(frames(), live=True)) as capture:
        assert all_delivered.wait(LONG)
        frame = capture.mailbox.take(LONG)
        assert (frame.id, frame.rgb[0, 0, 0]) == (9, 9)
        assert capture.dropped == 9
        with pytest.raises(Closed):
            capture.mailbox.take(LONG)


def test_frames_are_stamped_at_the_grab() -> None:
    clock = StepClock(monotonic_ns=1000, unix_ns=5_000_000)
    with Capture(SyntheticCamera([flat((1, 2, 3))] * 4, fps=50, clock=clock), clock=clock) as capture:
        frames = take_all(capture)
    assert [frame.captured_ns for frame in frames] == [1000 + i * 20_000_000 for i in range(4)]
    assert [frame.captured_unix_ns - frame.captured_ns for frame in frames] == [4_999_000] * 4


def test_an_error_in_the_thread_reaches_the_taker_with_its_cause() -> None:
    def frames() -> Iterator[np.ndarray]:
        yield flat((1, 1, 1))
        raise CameraError("the cable is out") from OSError("no such device")

    camera = SyntheticCamera(frames())
    with Capture(camera) as capture:
        assert capture.mailbox.take(LONG).id == 0
        with pytest.raises(CameraError, match="the cable is out") as caught:
            capture.mailbox.take(LONG)
    assert isinstance(caught.value.__cause__, OSError)
    assert camera.closed


def test_a_frame_that_cannot_be_tracked_is_an_error_by_name() -> None:
    with Capture(SyntheticCamera([flat((1, 1, 1)), np.full((33, 49, 3), np.nan)])) as capture:
        capture.mailbox.take(LONG)
        with pytest.raises(FrameError, match="NaN"):
            capture.mailbox.take(LONG)


def test_closing_does_not_wait_for_a_camera_that_blocks() -> None:
    unblock = threading.Event()

    def frames() -> Iterator[np.ndarray]:
        yield flat((1, 1, 1))
        unblock.wait(LONG)

    with Capture(SyntheticCamera(frames())) as capture:
        capture.mailbox.take(LONG)
        before = time.monotonic()
        capture.close()
        assert time.monotonic() - before < LONG / 3
        unblock.set()


def test_closing_stops_a_recording_that_nobody_reads() -> None:
    camera = SyntheticCamera(flat((1, 1, 1)) for _ in iter(int, 1))
    with Capture(camera) as capture:
        capture.mailbox.take(LONG)
    capture._thread.join(LONG)
    assert camera.closed


def test_a_capture_that_never_ran_closes_its_camera() -> None:
    camera = SyntheticCamera([flat((1, 1, 1))])
    Capture(camera).close()
    assert camera.closed


def test_a_size_that_changes_is_scaled_back_and_reported_once() -> None:
    said: list[str] = []
    sizes = [(49, 33), (49, 33), (98, 66), (31, 17), (49, 33)]
    images = [flat((9, 9, 9), *size) for size in sizes]
    with Capture(SyntheticCamera(images, name="door"), report=said.append) as capture:
        frames = take_all(capture)
    assert [frame.rgb.shape for frame in frames] == [(33, 49, 3)] * 5
    assert said == ["door went from 49x33 to 98x66; its frames are scaled to 49x33"]


def test_a_synthetic_camera_needs_a_frame() -> None:
    with pytest.raises(CameraError, match="at least one"):
        SyntheticCamera([])


@pytest.mark.parametrize("name", ["clip.avi", "clip.mp4"])
def test_a_video_gives_its_frames_in_rgb_and_ends(tmp_path: Path, name: str) -> None:
    camera = open_camera(str(write_video(tmp_path / name)))
    assert (camera.name, camera.live, camera.size, camera.fps) == ("clip", False, (64, 48), 25.0)
    assert camera.description == f"{name}: 64x48 at 25 fps"
    frames = read_all(camera)
    camera.close()
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)
    np.testing.assert_allclose(colors_of(frames), COLORS, atol=12)


def test_a_captured_video_is_whole(tmp_path: Path) -> None:
    with Capture(open_camera(str(write_video(tmp_path / "odd.avi", size=(65, 49))))) as capture:
        frames = take_all(capture)
    np.testing.assert_allclose(colors_of([frame.rgb for frame in frames]), COLORS, atol=12)


@pytest.mark.parametrize(("fps", "seconds"), [(None, 0.2), (10.0, 0.5)])
def test_realtime_paces_a_video_at_its_own_rate_or_the_one_asked(tmp_path: Path, fps, seconds) -> None:
    clock = StepClock()
    camera = open_camera(str(write_video(tmp_path / "clip.avi")), fps=fps, realtime=True, clock=clock)
    assert len(read_all(camera)) == 5  # and the sixth grab finds the end, one period later
    assert clock.monotonic_ns() == pytest.approx(seconds * 1e9, abs=10)


def test_without_realtime_a_video_does_not_wait(tmp_path: Path) -> None:
    clock = StepClock()
    read_all(open_camera(str(write_video(tmp_path / "clip.avi")), clock=clock))
    assert clock.monotonic_ns() == 0


def test_a_size_asked_of_a_video_is_reported_as_not_met(tmp_path: Path) -> None:
    camera = open_camera(str(write_video(tmp_path / "clip.avi")), size=(1280, 720))
    assert camera.size == (64, 48)
    assert camera.description == "clip.avi: 64x48 at 25 fps (asked 1280x720)"


def test_files_that_are_no_video_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "cut.mp4").write_bytes(write_video(tmp_path / "clip.mp4").read_bytes()[:700])
    for name, says in {"empty": "is an empty file", "text": "not a video", "cut": "damaged", "gone": "no file"}.items():
        with pytest.raises(CameraError, match=says):
            open_camera(str(tmp_path / f"{name}.mp4"))


def test_ffmpeg_and_opencv_are_silent(tmp_path: Path) -> None:
    """In a process of its own: OpenCV asks only once how much ffmpeg may say."""
    (tmp_path / "text.mp4").write_text("not a video")
    for spec in (str(tmp_path / "text.mp4"), "97", f"rtsp://ann:s3cret@{nobody()}/live"):
        program = f"from online_tapir.camera import open_camera; open_camera({spec!r})"
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG, check=False)
        before, _, error = run.stderr.partition("Traceback")
        assert (run.stdout, before) == ("", "")
        assert "CameraError" in error
        assert "s3cret" not in error.splitlines()[-1]


def test_a_video_too_small_to_track_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="at least 16x16"):
        open_camera(str(write_video(tmp_path / "tiny.avi", size=(12, 12)))).read()


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number, color in zip((1, 2, 9, 10, 100), COLORS, strict=True):
        suffix = ("png", "bmp", "tiff", "webp", "JPG")[number % 5]
        cv2.imwrite(str(tmp_path / f"frame{number}.{suffix}"), flat(color)[..., ::-1])
    (tmp_path / "notes.txt").write_text("not an image")
    camera = open_camera(str(tmp_path), fps=12)
    assert (camera.live, camera.size, camera.fps) == (False, (49, 33), 12)
    assert camera.description == f"{tmp_path.name}: 5 images, 49x33 at 12 fps"
    np.testing.assert_allclose(colors_of(read_all(camera)), COLORS, atol=12)


def test_grey_alpha_and_sixteen_bit_images_become_rgb8(tmp_path: Path) -> None:
    bgr = flat((30, 20, 10))
    cv2.imwrite(str(tmp_path / "1.png"), np.full((33, 49), 77, np.uint8))
    cv2.imwrite(str(tmp_path / "2.png"), np.dstack([bgr, np.full((33, 49), 128, np.uint8)]))
    cv2.imwrite(str(tmp_path / "3.png"), bgr.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "4.png"), np.full((33, 49), 88 * 257, np.uint16))
    colors = colors_of(read_all(open_camera(str(tmp_path))))
    np.testing.assert_array_equal(colors, [(77, 77, 77), (10, 20, 30), (10, 20, 30), (88, 88, 88)])


def test_one_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "still.png"), flat((1, 2, 3)))
    assert len(read_all(open_camera(str(tmp_path / "still.png")))) == 1


def test_a_folder_without_images_and_an_image_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="has no images in it"):
        open_camera(str(tmp_path))
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(CameraError, match=r"a\.png is not an image"):
        open_camera(str(tmp_path))


def test_realtime_paces_a_folder(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), flat((1, 2, 3)))
    clock = StepClock()
    read_all(open_camera(str(tmp_path), fps=10, realtime=True, clock=clock))
    assert clock.monotonic_ns() == 300_000_000


@pytest.fixture
def jpeg_server() -> Iterator[str]:
    """An address on loopback that sends sixty JPEGs to whoever connects first, and hangs up."""
    jpeg = cv2.imencode(".jpg", flat((250, 20, 30), 160, 120)[..., ::-1])[1].tobytes()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(jpeg * 60)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(LONG)
    listener.close()


def test_a_stream_is_live_and_says_when_it_stops(jpeg_server: str) -> None:
    camera = open_camera(jpeg_server, size=(640, 480))
    assert camera.live
    assert camera.name == jpeg_server.removeprefix("tcp://")
    assert camera.size == (160, 120)
    assert camera.description.endswith("(asked 640x480)")
    np.testing.assert_allclose(colors_of([camera.read()]), [(250, 20, 30)], atol=6)
    with Capture(camera) as capture, pytest.raises(CameraError, match="stopped giving frames"):
        take_all(capture)


def test_an_address_that_nobody_answers_is_refused_without_its_password() -> None:
    address = nobody()
    with pytest.raises(CameraError, match=f"rtsp://{address}/live cannot be reached") as caught:
        open_camera(f"rtsp://ann:s3cret@{address}/live?token=s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://ann:s3cret@10.0.0.7:554/live",
        "rtsp://ann:s3cr/et@10.0.0.7:554/live?key=s3cret#s3cret",
        "http://ann:s3c?r@et@10.0.0.7:554/live",
        "http://s3cret@10.0.0.7:554",
    ],
)
def test_secrets_of_an_address_are_never_shown(address: str) -> None:
    assert host(address) == "10.0.0.7:554"
    assert without_secrets(address).removesuffix("/live") in ("rtsp://10.0.0.7:554", "http://10.0.0.7:554")


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://cam/stream?user=admin&password=s3c@ret",
        "http://cam?token=s3c@ret/x",
        "http://cam:80?token=s3c@ret/x",
        "http://cam:80/a?b#s3c@ret",
        "rtsp://ann:s3c/x?y@ret@10.0.0.7",
    ],
)
def test_where_an_address_may_be_read_in_two_ways_nothing_of_it_is_shown(address: str) -> None:
    assert without_secrets(address).partition("://")[2] == "(hidden)"
    assert source_name(address) == "hidden"


def test_names_are_safe_in_a_topic() -> None:
    assert topic_name("my clip/№1\0") == "my-clip-1"
    assert topic_name("дорога") == "дорога"
    assert topic_name("e\u0301tage") == "\u00e9tage"  # one name, however its accents are written
    assert topic_name("[::1]:554") == "::1-:554"
    assert topic_name("日本") == "日本"
    assert topic_name("?!") == "camera"
    assert len(topic_name("x" * 500)) == 64
    cut = topic_name("x" * 63 + " " + "y" * 9)
    assert topic_name(cut) == cut == "x" * 63


def attach(sysfs: Path, devices: Path, node: str, name: str, index: int = 0) -> None:
    (sysfs / node).mkdir(parents=True)
    (sysfs / node / "name").write_text(name + "\n")
    (sysfs / node / "index").write_text(f"{index}\n")
    devices.mkdir(exist_ok=True)
    (devices / node).touch()


@pytest.mark.skipif("sys.platform != 'linux'", reason="only Linux lists its cameras in sysfs")
def test_the_cameras_are_listed_by_index_without_their_metadata(tmp_path: Path) -> None:
    sysfs, devices = tmp_path / "sys", tmp_path / "dev"
    for node, name, index in (("video10", "Depth", 0), ("video2", "Desk", 0), ("video3", "Desk", 1)):
        attach(sysfs, devices, node, name, index)
    (sysfs / "video4").mkdir()  # known to the system, with no device to open
    (sysfs / "v4l-subdev0").mkdir()
    found = list_cameras(sysfs=sysfs, devices=devices)
    desk, depth = CameraInfo(2, str(devices / "video2"), "Desk"), CameraInfo(10, str(devices / "video10"), "Depth")
    assert found == [desk, depth]
    assert str(desk) == "2 (Desk)"


@pytest.mark.skipif("sys.platform != 'linux'", reason="only Linux lists its cameras in sysfs")
def test_no_cameras_are_an_empty_list(tmp_path: Path) -> None:
    assert list_cameras(sysfs=tmp_path / "none", devices=tmp_path) == []


@pytest.mark.parametrize(
    ("attached", "says"),
    [
        ([], "there is no camera 97: this machine has none; attach one, or try `--camera demo`"),
        ([CameraInfo(0, "/dev/video0", "Lid"), CameraInfo(2, "/dev/video2", "Desk")], r"has 0 \(Lid\), 2 \(Desk\)"),
        ([CameraInfo(97, "/dev/video97", "Lid")], r"camera 97 \(Lid\) cannot be opened; another program has it"),
    ],
)
def test_a_missing_camera_is_refused_with_those_that_exist(monkeypatch, attached, says) -> None:
    monkeypatch.setattr("online_tapir.camera.opencv.list_cameras", lambda: attached)
    with pytest.raises(CameraError, match=says):
        open_camera("97")


def test_a_missing_device_path_is_refused() -> None:
    with pytest.raises(CameraError, match="there is no camera /dev/video97"):
        open_camera("/dev/video97")


def test_the_demo_takes_its_size_rate_and_seed() -> None:
    camera = open_camera("demo:7", size=(65, 49), fps=12, clock=StepClock())
    assert (camera.name, camera.live, camera.size, camera.fps) == ("demo", True, (65, 49), 12)
    other = open_camera("demo", size=(65, 49), fps=0)
    assert not other.live
    assert (camera.read() != other.read()).any()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("demo:x", "seed is a whole number, not 'x'"),
        ("ftp://ann:s3cret@host/x", "ftp://host/x cannot be read; an address begins with one of rtsp"),
        ("no/such/file.mp4", "there is no file no/such/file.mp4"),
        ("", "is empty; give an index"),
        (" ", "is empty; give an index"),
        ("99999999999", "there is no camera 99999999999: indices end at 99"),
        ("200", "there is no camera 200: indices end at 99"),  # OpenCV would take it for index 0 of its backend 200
        ("9" * 5000, r"there is no camera 999999999\.\.\. \(5000 digits\)"),
        ("a" * 5000, r"there is no file a+\.\.\. \(5000 characters\)"),
    ],
    ids=lambda text: text[:20] or "empty",
)
def test_what_no_camera_is_called_is_refused(spec: str, says: str) -> None:
    with pytest.raises((CameraError, ConfigError), match=says):
        open_camera(spec)


@pytest.mark.parametrize("asked", [{"size": (15, 400)}, {"fps": 0}, {"fps": -1}, {"fps": float("nan")}])
def test_a_size_or_rate_that_cannot_be_is_refused(asked) -> None:
    with pytest.raises(ConfigError, match="asked for"):
        open_camera("0", **asked)


@pytest.mark.parametrize("size", [(100_000, 100_000), (16_384, 16_384), (7680, 4320)])
def test_a_demo_that_would_fill_the_memory_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"{size[0]}x{size[1]} was asked"):
        open_camera("demo", size=size, fps=0)


def test_twelve_bit_images_are_as_bright_as_they_were_and_do_not_flicker(tmp_path: Path) -> None:
    for number, grey in enumerate((200, 90, 10, 255)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((33, 49), grey * 4095 // 255, np.uint16))
    camera = open_camera(str(tmp_path))
    assert "4 images of 12 bits" in camera.description
    assert [image[0, 0, 0] for image in read_all(camera)] == pytest.approx([200, 90, 10, 255], abs=1)


def test_an_image_that_needs_more_bits_widens_the_depth(tmp_path: Path) -> None:
    for number, value in enumerate((1000, 1000, 1000, 1000, 3001, 1000)):  # the first, fourth and last are looked at
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((33, 49), value, np.uint16))
    greys = [image[0, 0, 0] for image in read_all(open_camera(str(tmp_path)))]
    assert greys == [249, 249, 249, 249, 187, 62]  # of 10 bits, then of 12


def test_a_recording_that_plays_too_slowly_says_so_once(tmp_path: Path) -> None:
    for number in range(90):
        cv2.imwrite(str(tmp_path / f"{number}.png"), flat((1, 2, 3)))
    clock, said = StepClock(), list[str]()
    camera = open_camera(str(tmp_path), fps=25, realtime=True, clock=clock, report=said.append)
    while camera.read() is not None:
        clock.sleep(0.1)
    assert len(said) == 1
    assert f"{tmp_path.name} is played at 10 frames a second instead of 25" in said[0]


def test_a_recording_in_a_loop_begins_again_and_its_numbers_go_on(tmp_path: Path) -> None:
    clock = StepClock()
    camera = open_camera(str(write_video(tmp_path / "clip.avi")), loop=True, realtime=True, clock=clock)
    assert (camera.name, camera.live, camera.description) == (
        "clip",
        False,
        "clip.avi: 64x48 at 25 fps, again and again",
    )
    with Capture(camera, clock=clock) as capture:
        frames = [capture.mailbox.take(LONG) for _ in range(12)]
    assert [frame.id for frame in frames] == list(range(12))
    np.testing.assert_allclose(colors_of([frame.rgb for frame in frames]), (3 * COLORS)[:12], atol=12)
    assert [frame.captured_ns for frame in frames] == [i * 40_000_000 for i in range(12)]  # without a gap or a jump


def test_a_live_source_cannot_be_looped() -> None:
    with pytest.raises(ConfigError, match="--loop plays a recording again and again, and demo is a live source"):
        open_camera("demo", size=(49, 33), loop=True)

"""Imports run one way, and there is a room for everything."""

from bench.structure import LAYERS, ROOT, between_rooms, circles, modules, room

TOP = {
    *("__init__", "__main__", "clock", "errors", "files", "limits"),
    *("mailbox", "picture", "plain_json", "records", "streams", "testing"),
}


def test_every_import_goes_to_a_lower_layer() -> None:
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    upwards = [
        f"{source} -> {target}"
        for source, targets in between_rooms().items()
        for target in targets
        if layer[target] >= layer[source]
    ]
    assert upwards == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles() == []


def test_every_module_has_its_room() -> None:
    assert {room(name) for name in modules() if name != "online_tapir"} <= {name for names in LAYERS for name in names}
    assert {path.stem for path in ROOT.glob("*.py")} == TOP

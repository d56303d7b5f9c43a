"""What a reader of directories has not been told yet."""


def new_notes(told: tuple[str, ...], notes: tuple[str, ...]) -> list[str]:
    """Those at the end of `notes` that were not there yet; both are pieces of one sequence."""
    for overlap in range(min(len(told), len(notes)), -1, -1):
        if told[len(told) - overlap :] == notes[:overlap]:
            return list(notes[overlap:])
    return list(notes)

"""Why a move ends before all images are moved."""

FILES_MISSING = "their files are missing"
RESERVED = (
    "a server that was interrupted, perhaps this one, may still remove files there; it tries again every 10 minutes, and "
    "when it starts: move the images again later, at the latest after a day"
)
INTERRUPTED = "interrupted; the current batch is recovered, and the other images were not moved"


class MoveIncomplete(Exception):
    """The job ends before all images are moved; the text is the reason."""


class TakenOver(MoveIncomplete):
    """The lock was lost, and another server has recovered: this one changes nothing more."""

    def __init__(self) -> None:
        super().__init__("the connection that held the lock was lost, and another server took over")

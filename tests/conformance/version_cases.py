"""What becomes of versions, labels and models over time: section 5 of the wire reference, as plays.

Each play is about one model, which has the play's name. A step is the name of one of `Actor`'s
methods in `version_plays`, and its arguments; in texts, `{m}` is the model's name and `{base}` its
base path. A step that begins with "theirs" is for TensorFlow Serving alone, one that begins with
"ours" for our server alone, which is kinder.
"""

from dataclasses import dataclass
from typing import Any

SHARED_FLAGS = ("--model_config_file_poll_wait_seconds=1", "--max_num_load_retries=0")

Step = tuple[Any, ...]


@dataclass(frozen=True)
class Play:
    """What happens to one model.

    Attributes:
        name: Name of the play, and of its model.
        section: Where the wire reference says so.
        before: What is done before the server starts.
        after: What is done, or must come, after that.
        flags: Flags of a server that this play has to itself; None is the one that plays share.
        restored_by: Flags with which our server goes TensorFlow Serving's way.
    """

    name: str
    section: str
    before: list[Step]
    after: list[Step]
    flags: tuple[str, ...] | None = None
    restored_by: tuple[str, ...] = ()


NOT_SERVED = ("refused", 404, "Servable not found for request: Latest({m})")

PLAYS = [
    # Names of version directories
    *(
        Play(
            f"named_{name}",
            "5.2",
            before=[("publish", "2", folder_name)],
            after=[("states", {version: "AVAILABLE"}), ("answer", 2)],
        )
        for name, folder_name, version in (
            ("zeros", "00000123", 123),
            ("blank", " 7", 7),
            ("blank_after", "7 ", 7),
            ("plus", "+7", 7),
            ("zero", "0", 0),
            ("largest", "9223372036854775807", 9223372036854775807),
        )
    ),
    *(
        Play(
            f"ignored_{name}",
            "5.2",
            before=[("publish", "1")],
            after=[
                ("states", {1: "AVAILABLE"}),
                ("publish", "2", folder_name),
                ("still", {1: "AVAILABLE"}),
                ("answer", 1),
            ],
        )
        for name, folder_name in (
            ("letter", "v3"),
            ("suffix", "4.tmp"),
            ("hexadecimal", "0x9"),
            ("exponent", "1e3"),
            ("fraction", "2.0"),
            ("too_large", "9223372036854775808"),
        )
    ),
    # What stands in a base path
    Play(
        "linked",
        "5.2",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "link", "6"),
            ("states", {6: "AVAILABLE", 1: "END"}),
            ("answer", 2),
        ],
    ),
    Play(
        "plain_file",
        "5.2",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "file", "6"),
            ("theirs", "states", {6: "END", 1: "AVAILABLE"}),
            ("theirs", "error", 6, None, "/6; Not a directory"),
            ("ours", "still", {1: "AVAILABLE"}),
            ("answer", 1),
        ],
    ),
    Play(
        "twice",
        "5.2",
        before=[("publish", "1", "007"), ("publish", "2", "7")],
        after=[("states", {7: "AVAILABLE"}), ("answer", 2)],
    ),
    Play(
        "twice_specific",
        "5.2",
        before=[("publish", "1", "+7"), ("publish", "2", "7"), ("config", "specific", (7,))],
        after=[("states", {7: "AVAILABLE"}), ("answer", 2)],
    ),
    Play(
        "empty_version",
        "5.2",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "empty", "2"),
            ("theirs", "states", {2: "END", 1: "AVAILABLE"}),
            ("ours", "still", {1: "AVAILABLE"}),
            ("answer", 1),
        ],
    ),
    # Policies
    Play(
        "latest_one",
        "5.2",
        before=[("publish", "1"), ("publish", "3"), ("publish", "2")],
        after=[
            ("states", {3: "AVAILABLE"}),
            ("answer", 3),
            ("answer", 3, "versions/3"),
            ("refused", 404, "Servable not found for request: Specific({m}, 2)", "versions/2"),
            ("refused", 404, "Servable not found for request: Specific({m}, 0)", "versions/0"),
        ],
    ),
    Play(
        "latest_two",
        "5.2",
        before=[("publish", "1"), ("publish", "2"), ("publish", "3"), ("config", "latest", (2,))],
        after=[
            ("states", {3: "AVAILABLE", 2: "AVAILABLE"}),
            ("publish", "4"),
            ("states", {4: "AVAILABLE", 3: "AVAILABLE", 2: "END"}),
            ("config", "latest", (1,)),
            ("states", {4: "AVAILABLE", 3: "END", 2: "END"}),
        ],
    ),
    Play(
        "all",
        "5.2",
        before=[("publish", "1"), ("publish", "2"), ("publish", "3"), ("config", "all")],
        after=[
            ("states", {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"}),
            ("answer", 3),
            ("answer", 1, "versions/1"),
            ("remove", "2"),
            ("states", {3: "AVAILABLE", 2: "END", 1: "AVAILABLE"}),
            ("refused", 404, "Servable not found for request: Specific({m}, 2)", "versions/2"),
        ],
    ),
    Play(
        "specific",
        "5.2",
        before=[("publish", "1"), ("publish", "2"), ("config", "specific", (1, 3))],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "3"),
            ("states", {3: "AVAILABLE", 1: "AVAILABLE"}),
            ("config", "specific", (2,)),
            ("states", {3: "END", 2: "AVAILABLE", 1: "END"}),
        ],
    ),
    Play(
        "specific_and_not_there",
        "5.2",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("config", "specific", (2,)),
            ("theirs", "states", {1: "END"}),
            ("ours", "still", {1: "AVAILABLE"}),
            ("publish", "2"),
            ("states", {2: "AVAILABLE", 1: "END"}),
        ],
    ),
    # Polling
    Play(
        "all_removed",
        "5.3",
        before=[("publish", "1")],
        after=[
            ("answer", 1),
            ("remove", "1"),
            ("states", {1: "END"}),
            NOT_SERVED,
            (
                "log",
                (
                    "No versions of servable {m} found under base path {base}. Did you forget to "
                    "name your leaf directory as a number (eg. '/1/')?"
                ),
            ),
            ("publish", "1"),
            ("states", {1: "AVAILABLE"}),
            ("answer", 1),
        ],
    ),
    Play(
        "base_removed",
        "5.3",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("remove_base",),
            ("log", "Could not find base path {base} for servable {m} with error NOT_FOUND:"),
            ("still", {1: "AVAILABLE"}),
            ("answer", 1),
            ("restore_base",),
            ("publish", "2"),
            ("states", {2: "AVAILABLE", 1: "END"}),
        ],
        flags=(*SHARED_FLAGS,),
    ),
    Play(
        "configured_later",
        "5.3",
        before=[("publish", "1"), ("config", None)],
        after=[
            NOT_SERVED,
            ("config", "latest"),
            ("states", {1: "AVAILABLE"}),
            ("answer", 1),
            ("config", None),
            ("states", {1: "END"}),
            NOT_SERVED,
            ("config", "latest"),
            ("states", {1: "AVAILABLE"}),
        ],
    ),
    Play(
        "never_configured_again",
        "5.3",
        before=[("publish", "1"), ("config", "latest")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("config", "all"),
            ("publish", "2"),
            ("states", {2: "AVAILABLE", 1: "END"}),
            ("still", {2: "AVAILABLE", 1: "END"}),
        ],
        flags=(),
    ),
    Play(
        "configured_wrongly",
        "5.3",
        before=[("publish", "1"), ("publish", "2")],
        after=[
            ("states", {2: "AVAILABLE"}),
            ("remove_config",),
            ("log", "No such file or directory"),
            ("write_config", "model_config_list { nothing"),
            ("log", "Error parsing text-format tensorflow.serving.ModelServerConfig:"),
            ("write_config", ""),
            ("still", {2: "AVAILABLE"}),
            ("answer", 2),
            ("config", "all"),
            ("states", {2: "AVAILABLE", 1: "AVAILABLE"}),
        ],
        flags=(*SHARED_FLAGS,),
    ),
    Play(
        "looks_once",
        "5.3",
        before=[("publish", "1")],
        after=[("states", {1: "AVAILABLE"}), ("publish", "2"), ("still", {1: "AVAILABLE"})],
        flags=("--file_system_poll_wait_seconds=0",),
    ),
    Play(
        "looks_never",
        "5.3",
        before=[("publish", "1")],
        after=[("closed",)],
        flags=("--file_system_poll_wait_seconds=-1",),
    ),
    Play(
        "missing_at_the_start",
        "5.3, 5.4, 2.3",
        before=[("remove_base",)],
        after=[
            ("log", "Could not find base path {base} for servable {m} with error NOT_FOUND:"),
            (
                "theirs",
                "closed",
            ),
            ("ours", *NOT_SERVED),
            ("restore_base",),
            ("publish", "1"),
            ("states", {1: "AVAILABLE"}),
            ("answer", 1),
        ],
        flags=(*SHARED_FLAGS,),
        restored_by=("--strict_start",),
    ),
    Play(
        "empty_at_the_start",
        "5.3, 2.3",
        before=[],
        after=[
            ("log", "No versions of servable {m} found under base path {base}."),
            (
                "theirs",
                "closed",
            ),
            ("ours", *NOT_SERVED),
            ("publish", "1"),
            ("states", {1: "AVAILABLE"}),
            ("answer", 1),
        ],
        flags=(*SHARED_FLAGS,),
        restored_by=("--strict_start",),
    ),
    Play(
        "missing_beside",
        "5.3",
        before=[("publish", "1"), ("config_beside", "missing")],
        after=[
            (
                "log",
                (
                    "Could not find base path /no/such/folder for servable missing with error "
                    "NOT_FOUND:"
                ),
            ),
            (
                "theirs",
                "closed",
            ),
            ("ours", "states", {1: "AVAILABLE"}),
            ("ours", "answer", 1),
        ],
        flags=(*SHARED_FLAGS,),
        restored_by=("--strict_start",),
    ),
    # Order
    Play(
        "swapped",
        "5.4",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("watch",),
            ("publish", "2"),
            ("states", {2: "AVAILABLE", 1: "END"}),
            ("publish", "4"),
            ("states", {4: "AVAILABLE", 2: "END", 1: "END"}),
            ("publish", "3"),
            ("still", {4: "AVAILABLE", 2: "END", 1: "END"}),
            ("remove", "4"),
            ("states", {4: "END", 3: "AVAILABLE", 2: "END", 1: "END"}),
            ("seen", 1, 2, 4, 3),
        ],
    ),
    Play(
        "copied_slowly",
        "5.5",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("watch",),
            ("trickle", "2"),
            ("theirs", "states", {2: "END", 1: "AVAILABLE"}),
            ("ours", "states", {2: "AVAILABLE", 1: "END"}),
        ],
    ),
    # Labels
    Play(
        "labels",
        "5.6",
        before=[("publish", "1"), ("publish", "2"), ("config", "all")],
        after=[
            ("states", {2: "AVAILABLE", 1: "AVAILABLE"}),
            ("refused", 400, "Unrecognized servable version label: stable", "labels/stable"),
            ("config", "all", (), {"stable": 1, "canary": 2}),
            ("answer", 1, "labels/stable"),
            ("answer", 2, "labels/canary"),
            ("config", "all", (), {"stable": 2}),
            ("answer", 2, "labels/stable"),
            ("refused", 400, "Unrecognized servable version label: canary", "labels/canary"),
            ("config", "latest", (), {"stable": 2}),
            ("states", {2: "AVAILABLE", 1: "END"}),
            ("remove", "2"),
            ("states", {2: "END", 1: "AVAILABLE"}),
            ("refused", 404, "Servable not found for request: Specific({m}, 2)", "labels/stable"),
        ],
        flags=(*SHARED_FLAGS,),
    ),
    Play(
        "labels_at_the_start",
        "5.6",
        before=[("publish", "1"), ("config", "latest", (), {"stable": 1})],
        after=[
            (
                "theirs",
                "ends",
                (
                    "FAILED_PRECONDITION: Request to assign label to version 1 of model {m}, "
                    "which is not currently available for inference"
                ),
            ),
            ("ours", "answer", 1, "labels/stable"),
        ],
        flags=(*SHARED_FLAGS,),
        restored_by=("--strict_version_labels",),
    ),
    Play(
        "labels_of_unavailable",
        "5.6",
        before=[("publish", "1"), ("config", "all", (), {"stable": 1, "next": 3})],
        after=[
            ("answer", 1, "labels/stable"),
            ("refused", 404, "Servable not found for request: Specific({m}, 3)", "labels/next"),
            ("config", "all", (), {"stable": 2}),
            (
                "theirs",
                "log",
                (
                    "Request to assign label to version 2 of model {m}, which is not currently "
                    "available for inference"
                ),
            ),
            (
                "theirs",
                "refused",
                404,
                "Servable not found for request: Specific({m}, 3)",
                "labels/next",
            ),
            ("ours", "refused", 400, "Unrecognized servable version label: next", "labels/next"),
            ("answer", 1, "labels/stable"),
            ("publish", "2"),
            ("answer", 2, "labels/stable"),
            ("refused", 400, "Unrecognized servable version label: next", "labels/next"),
        ],
        flags=(*SHARED_FLAGS, "--allow_version_labels_for_unavailable_models"),
        restored_by=("--strict_version_labels",),
    ),
    Play(
        "labels_too_early",
        "5.6",
        before=[("publish", "1"), ("config", "all")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("config", "all", (), {"stable": 2}),
            (
                "theirs",
                "log",
                (
                    "Request to assign label to version 2 of model {m}, which is not currently "
                    "available for inference"
                ),
            ),
            (
                "theirs",
                "refused",
                400,
                "Unrecognized servable version label: stable",
                "labels/stable",
            ),
            (
                "ours",
                "refused",
                404,
                "Servable not found for request: Specific({m}, 2)",
                "labels/stable",
            ),
            ("publish", "2"),
            ("answer", 2, "labels/stable"),
        ],
        flags=(*SHARED_FLAGS,),
        restored_by=("--strict_version_labels",),
    ),
    # Reloads
    Play(
        "filled",
        "5.1",
        before=[("publish", "1"), ("config", None)],
        after=[NOT_SERVED, ("reload", "latest"), ("now", {1: "AVAILABLE"}), ("answer", 1)],
        flags=(*SHARED_FLAGS,),
    ),
]

"""What becomes of versions that cannot be loaded: section 5.5 of the wire reference, as plays."""

from tests.conformance.version_cases import NOT_SERVED, SHARED_FLAGS, Play

PLAYS = [
    Play(
        "failed",
        "5.5",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("watch",),
            ("publish", "half", "2"),
            ("states", {2: "END", 1: "AVAILABLE"}),
            (
                "error",
                2,
                "NOT_FOUND",
                (
                    "Specified file path does not appear to contain a SavedModel bundle (should "
                    "have a file called `saved_model.pb`)\nSpecified file path: {base}/2"
                ),
            ),
            ("still", {2: "END", 1: "AVAILABLE"}),
            ("publish", "3"),
            ("states", {3: "AVAILABLE", 2: "END", 1: "END"}),
            ("seen", 1, 3),
        ],
    ),
    Play(
        "cut",
        "5.5",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "cut", "2"),
            ("states", {2: "END", 1: "AVAILABLE"}),
            ("error", 2, "OUT_OF_RANGE", "Read less bytes than requested"),
            ("answer", 1),
        ],
    ),
    Play(
        "session_bundle",
        "5.5",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "bundle", "2"),
            ("states", {2: "END", 1: "AVAILABLE"}),
            ("error", 2, "UNIMPLEMENTED", "Session Bundle is deprecated and removed."),
        ],
    ),
    *(
        Play(
            f"graph_{broken}",
            "5.5",
            before=[("publish", "1")],
            after=[
                ("states", {1: "AVAILABLE"}),
                ("publish", broken, "2"),
                ("states", {2: "END", 1: "AVAILABLE"}),
                ("answer", 1),
            ],
        )
        for broken in ("empty_graph", "no_graph", "other_message")
    ),
    Play(
        "repaired",
        "5.5",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "half", "2"),
            ("states", {2: "END", 1: "AVAILABLE"}),
            ("repair", "2"),
            ("theirs", "still", {2: "END", 1: "AVAILABLE"}),
            ("ours", "states", {2: "AVAILABLE", 1: "END"}),
            ("ours", "answer", 2),
        ],
    ),
    Play(
        "rolled_back",
        "5.5",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "half", "2"),
            ("states", {2: "END", 1: "AVAILABLE"}),
            ("remove", "2"),
            ("still", {2: "END", 1: "AVAILABLE"}),
            (
                "theirs",
                "log",
                ("Postponing processing of aspired versions request due to re-aspired version"),
            ),
            ("publish", "2"),
            ("theirs", "still", {2: "END", 1: "AVAILABLE"}),
            ("ours", "states", {2: "AVAILABLE", 1: "END"}),
            ("publish", "3"),
            ("states", {3: "AVAILABLE", 2: "END", 1: "END"}),
        ],
    ),
    Play(
        "retried",
        "5.5",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "half", "2"),
            ("states", {2: "LOADING", 1: "AVAILABLE"}),
            ("still", {2: "LOADING", 1: "AVAILABLE"}),
            ("error", 2, "OK"),
            ("answer", 1),
            ("states", {2: "END", 1: "AVAILABLE"}),
            ("error", 2, "NOT_FOUND", "Specified file path does not appear"),
        ],
        flags=("--max_num_load_retries=3", "--load_retry_interval_micros=1500000"),
    ),
    Play(
        "mended",
        "5.5",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "half", "2"),
            ("states", {2: "LOADING", 1: "AVAILABLE"}),
            ("repair", "2"),
            ("states", {2: "AVAILABLE", 1: "END"}),
            ("error", 2, "OK"),
            ("answer", 2),
        ],
        flags=("--load_retry_interval_micros=1500000",),
    ),
    Play(
        "not_retried",
        "5.5, 2.2",
        before=[("publish", "1")],
        after=[
            ("states", {1: "AVAILABLE"}),
            ("publish", "half", "2"),
            ("states", {2: "END", 1: "AVAILABLE"}),
        ],
        flags=("--max_num_load_retries=9", "--load_retry_interval_micros=-1"),
    ),
    Play(
        "broken_at_the_start",
        "5.5",
        before=[("publish", "cut", "1")],
        after=[
            (
                "theirs",
                "ends",
                (
                    "UNKNOWN: 1 servable(s) did not become available: {{{name: {m} version: 1} "
                    "due to error: OUT_OF_RANGE: Read less bytes than requested}, }"
                ),
            ),
            ("ours", "states", {1: "END"}),
            ("ours", *NOT_SERVED),
            ("ours", "repair", "1"),
            ("ours", "states", {1: "AVAILABLE"}),
        ],
        flags=(*SHARED_FLAGS,),
        restored_by=("--strict_start",),
    ),
    Play(
        "newest_broken_at_the_start",
        "5.5",
        before=[("publish", "1"), ("publish", "cut", "2")],
        after=[
            (
                "theirs",
                "ends",
                (
                    "UNKNOWN: 1 servable(s) did not become available: {{{name: {m} version: 2} "
                    "due to error: OUT_OF_RANGE: Read less bytes than requested}, }"
                ),
            ),
            ("ours", "states", {2: "END", 1: "AVAILABLE"}),
            ("ours", "answer", 1),
        ],
        flags=(*SHARED_FLAGS,),
    ),
    Play(
        "broken_beside",
        "5.5",
        before=[("publish", "cut", "1"), ("config_beside", "good")],
        after=[
            (
                "theirs",
                "ends",
                "UNKNOWN: 1 servable(s) did not become available: {{{name: {m} version:",
            ),
            ("ours", "states", {1: "END"}),
            ("ours", "log", "Successfully loaded servable version {name: good version: 4}"),
        ],
        flags=(*SHARED_FLAGS,),
        restored_by=("--strict_start",),
    ),
]

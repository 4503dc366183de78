"""Every path that may be asked for; what is not in the table is refused."""

import re
from typing import Final, Literal, NamedTuple

Kind = Literal[
    "home", "page", "file", "told", "media", "events", "graphql", "operators", "placements", "execute", "plugins",
    "plugin_file", "patch_sample", "patch_label",
]  # fmt: skip


class Route(NamedTuple):
    """What a request is about."""

    kind: Kind
    named: dict[str, str]
    """Parts of the path."""


_NAME: Final = r"[^/\\\0]+"
_FILE: Final = r"[\w@.-]+\.(?:js|css|wasm|svg|png|ico|json|woff2?|ttf|map)"
_TABLE: Final[tuple[tuple[str, str, Kind], ...]] = (
    ("GET", r"/", "home"),
    ("GET", rf"/datasets/(?P<dataset>{_NAME})", "page"),
    ("GET", rf"(?:/datasets)?/assets/{_FILE}", "file"),
    ("GET", r"(?:/datasets)?/(?:favicon\.ico|model_evaluation\.svg)", "file"),
    ("GET", r"/(?:fiftyone|features)", "told"),
    ("GET", r"/plugins", "plugins"),
    ("GET", r"/plugins/(?:[\w@-]+/)*index\.umd\.js", "plugin_file"),
    ("GET", r"/media", "media"),
    ("POST", r"/events", "events"),
    ("POST", r"/graphql", "graphql"),
    ("POST", r"/operators", "operators"),
    ("POST", r"/operators/resolve-placements", "placements"),
    ("POST", r"/operators/(?:execute|execute/generator|resolve-type|resolve-execution-options)", "execute"),
    ("PATCH", rf"/dataset/(?P<dataset>{_NAME})/sample/(?P<sample>[0-9a-f]{{24}})", "patch_sample"),
    (
        "PATCH",
        rf"/dataset/(?P<dataset>{_NAME})/sample/(?P<sample>[0-9a-f]{{24}})/(?P<field>[\w.]+)/(?P<label>[0-9a-f]{{24}})",
        "patch_label",
    ),
)
_COMPILED: Final = tuple((method, re.compile(pattern, re.ASCII), kind) for method, pattern, kind in _TABLE)


def find_route(method: str, path: str) -> Route | None:
    """Look a request up.

    Args:
        method: As the client sent it; HEAD asks what GET does.
        path: Decoded.
    """
    asked = "GET" if method == "HEAD" else method
    if ".." in path.split("/"):
        return None
    for allowed, pattern, kind in _COMPILED:
        if asked == allowed and (found := pattern.fullmatch(path)):
            return Route(kind, found.groupdict())
    return None

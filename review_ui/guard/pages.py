"""The review's own parts of pages: what takes the first batch, what covers the App until it shows an item, the end."""

import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Final

from vouch_labels import review_ui
from vouch_labels.review_ui.guard.settings import GuardSettings

OPEN: Final = "/vouch/open"
"""POST: takes a batch where the session has none; answers where to go."""
SCRIPTS: Final = ("opening", "before")
_FOLDER: Final = Path(review_ui.__file__).parent / "plugin"
PAUSE: Final = "pause"
"""Query of the App's page without an item: nothing is taken for it."""

# The App's grid draws nothing while it is covered, so that the first picture comes sooner.
_STYLE: Final = """<style>
#vouch-cover { position: fixed; inset: 0; z-index: 25000; display: flex; flex-direction: column; align-items: center;
  justify-content: center; background: #14171c; color: #e8eaed; font: 16px/1.5 system-ui, sans-serif; margin: 0 }
#vouch-cover p { margin: .3rem }
#vouch-cover a { color: #ffb14a }
#vouch-cover .slow { visibility: hidden; animation: vouch-slow 0s 20s forwards }
:root:has(#vouch-cover) [data-cy=fo-grid] { display: none }
@keyframes vouch-slow { to { visibility: visible } }
</style>"""
_COVER: Final = """<div id="vouch-cover" role="status" data-reviewer="{reviewer}">
<p>Opening the review of <b>{reviewer}</b> &hellip;</p>
<p class="slow">This takes longer than usual. <a href="">Load the page again</a></p>
</div>"""
_OPENING: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="same-origin">
<title>Vouch review</title>
{style}
<script type="module" src="/vouch/opening.js"></script>
</head>
<body>
{cover}
</body>
</html>
"""
_BEFORE: Final = '<script src="/vouch/before.js"></script>'
_FOREIGN: Final = re.compile(rb"<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>")
"""What the App's page would load from another host; the browser refuses it, and says so in its console."""
_TITLE: Final = re.compile(rb"<title>[^<]*</title>")


def opening_page(settings: GuardSettings) -> str:
    """A page that has a batch taken as soon as somebody sees it, and leads to its first item."""
    return _OPENING.format(style=_STYLE, cover=_cover(settings))


def in_app_page(settings: GuardSettings) -> Callable[[bytes], bytes]:
    """What changes the App's index page: the cover comes before the App's script, and the end's words wait in it."""
    head = f"<head>{_STYLE}{_BEFORE}".encode()
    body = f"<body>{_cover(settings)}{end_template(settings)}".encode()

    def covered(page: bytes) -> bytes:
        page = _TITLE.sub(b"<title>Vouch review</title>", _FOREIGN.sub(b"", page), count=1)
        return page.replace(b"<head>", head, 1).replace(b"<body>", body, 1)

    return covered


def script(name: str) -> Path:
    """The file of one of SCRIPTS."""
    return _FOLDER / f"{name}.js"


def _cover(settings: GuardSettings) -> str:
    return _COVER.format(reviewer=escape(settings.reviewer))


def end_template(settings: GuardSettings) -> str:
    """What the last page says beside the reviewer's own count: what stands certified, and the commands that follow."""
    lines = [f"<p>{escape(settings.certified)}</p>"] if settings.certified else []
    if settings.commands:
        rows = "".join(f"<li><code>{escape(command)}</code> {escape(what)}</li>" for command, what in settings.commands)
        lines += [
            "<p>What comes next is up to whoever runs the review: Ctrl-C ends it and brings the answers into the "
            f"workspace, and then</p><ol>{rows}</ol>"
        ]
    return f'<template id="vouch-end">{"".join(lines)}</template>'

"""The page that asks for a token; it names no other host and runs no script.

Its own address may hold a token, so it tells it to nobody, but for the scheme and host that a form's Origin needs.
"""

from html import escape
from typing import Final

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="strict-origin">
<title>Vouch review</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 100vh; margin: 0 }}
main {{ width: min(26rem, 90vw) }}
h1 {{ font-size: 1.4rem; margin: 0 0 .5rem }}
label, input, button {{ display: block; width: 100%; box-sizing: border-box; font: inherit }}
input, button {{ padding: .55rem .7rem; margin-top: .4rem; border: 1px solid #8888; border-radius: .4rem }}
button {{ margin-top: .8rem; background: #2458d3; color: #fff; border: 0; cursor: pointer }}
.problem {{ color: #c62828; font-weight: 600 }}
small {{ opacity: .75 }}
</style>
</head>
<body>
<main>
<h1>Vouch review</h1>
<p>This is the desk of <b>{reviewer}</b>.</p>
{problem}
<form method="post" action="/vouch/login">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="off" required autofocus>
<button type="submit">Begin to review</button>
</form>
<p><small>The token stands in the address that <code>vouch review</code> printed when it started.</small></p>
</main>
</body>
</html>
"""


def login_page(reviewer: str, problem: str = "") -> str:
    """The page, with what went wrong."""
    words = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return _PAGE.format(reviewer=escape(reviewer), problem=words)


def moved_page(where: str) -> str:
    """A page that only leads on."""
    return (
        '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0;url={escape(where)}">'
    )

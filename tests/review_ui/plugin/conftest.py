"""Ann's desk on a real server, see tests/review_ui/session/conftest.py."""

from tests.review_ui.session.conftest import documents, draw, make_desk, uri

__all__ = ["documents", "draw", "make_desk", "uri"]

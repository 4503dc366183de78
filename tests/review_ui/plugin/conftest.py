"""Ann's session on a real server, see tests/review_ui/session/conftest.py."""

from tests.review_ui.session.conftest import documents, draw, make_session, uri

__all__ = ["documents", "draw", "make_session", "uri"]

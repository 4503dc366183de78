"""Ann's desk on a real server, see tests/review_ui/desk/conftest.py."""

from tests.review_ui.desk.conftest import documents, draw, make_desk, uri

__all__ = ["documents", "draw", "make_desk", "uri"]

"""How people come to their session with a token: typed into the page that asks for it, or in the address."""

import pytest

from tests.browser.conftest import WAIT_MS

pytestmark = pytest.mark.browser

APP = "[data-cy=lighter-sample-image]"


@pytest.fixture
def page(browser):
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    yield context.new_page()
    context.close()


def type_token(page, token):
    page.fill("#token", token)
    page.get_by_role("button", name="Start reviewing").click()


def test_a_wrong_token_is_refused_with_a_message_and_the_right_one_opens_the_app(page, review):
    home, _, token = review.address.partition("?token=")
    page.goto(home)
    type_token(page, "not-the-token-of-anybody")
    assert page.get_by_role("alert").inner_text() == "That is not this reviewer's token."
    assert page.context.cookies() == []
    type_token(page, token)
    page.wait_for_selector(APP)
    assert page.url.startswith(f"{home}datasets/")
    [cookie] = [cookie for cookie in page.context.cookies() if cookie["name"].startswith("vouch-review-")]
    assert cookie["httpOnly"]


def test_a_token_in_the_address_is_sent_to_no_other_host(page, review):
    home, _, token = review.address.partition("?token=")
    asked = []
    page.on("request", lambda request: asked.append(request))
    # From a page of another site the session is reached by a page that leads on.
    page.goto("data:text/html,<a>review</a>")
    page.eval_on_selector("a", "(link, address) => { link.href = address }", review.address)
    page.click("a")
    page.wait_for_selector(APP)
    later = [request for request in asked if request.url.startswith(home) and request.url != review.address]
    assert len(later) > 5
    assert not [request.url for request in later if token in request.url]
    assert not [request.url for request in later if token in request.all_headers().get("referer", "")]
    assert token not in page.evaluate("document.referrer")


def test_from_an_address_with_a_wrong_token_the_right_one_can_be_typed(page, review):
    home, _, token = review.address.partition("?token=")
    asked = []
    page.on("request", lambda request: asked.append(request))
    page.goto(f"{home}?token=the-token-of-yesterday")
    type_token(page, token)
    page.wait_for_selector(APP)
    later = [request for request in asked if request.url.startswith(home)][1:]
    assert later
    assert not [request.url for request in later if "yesterday" in request.all_headers().get("referer", "")]

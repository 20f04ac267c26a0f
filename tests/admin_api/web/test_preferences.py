"""The theme and the language of a browser, kept by the app."""

from __future__ import annotations

import re

from tests.admin_api.web.conftest import Web


def test_theme_and_language_are_kept_by_the_app(web: Web) -> None:
    client = web.signed_in("privacy_officer")
    token = re.findall(r'<meta name="zegel-csrf" content="([^"]+)">', client.get("/").text)[0]
    answer = client.post("/preferences", data={"csrf": token, "theme": "dark", "language": "nl", "next": "/log?kind=x"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/log?kind=x")
    page = client.get("/").text
    assert '<html lang="nl" data-theme="dark">' in page
    assert "Ziekenhuizen" in page
    assert "Ziekenhuizen" in web.signed_in("privacy_officer").get("/").text  # the account's, in every browser
    assert "Ziekenhuizen" not in web.signed_in("release_manager").get("/").text
    client.post("/preferences", data={"csrf": token, "language": "en"})
    assert '<html lang="en" data-theme="dark">' in client.get("/").text
    refused = client.post("/preferences", data={"csrf": token, "language": "de"})
    assert refused.status_code == 422
    assert "There is no language de." in refused.text
    forged = client.post("/preferences", data={"theme": "light"}, headers={"X-CSRF-Token": "guessed"})
    assert forged.status_code == 403

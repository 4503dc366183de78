"""How a review is served, as its command asks."""

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from review_ui.guard.hosts import is_loopback
from schemas.campaign import Strict
from schemas.errors import UserError

WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - named to be told from an address


class ServeOptions(Strict):
    """Who reviews, where, and who is believed."""

    reviewers: tuple[str, ...] = Field(min_length=1, description="A server is started for each.")
    host: str = Field("127.0.0.1", description="Address to bind to.")
    port: int | None = Field(None, description="The first reviewer's port; a free one from 5151 on, if not given.")
    names: tuple[str, ...] = Field((), description="Other names that browsers reach this machine by.")
    token_file: Path | None = Field(None, description="The user's own tokens.")
    trust_header: str | None = Field(None, description="Header in which a proxy says who has logged in there.")
    trusted_proxies: tuple[str, ...] = Field((), description="Addresses or networks of proxies that are believed.")
    media: Literal["redirect", "proxy"] = Field("redirect", description="How images of a bucket reach the browser.")

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach it."""
        return not is_loopback(self.host)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that browsers may ask for, beside those of loopback."""
        return (*self.names, *(() if self.host in WILDCARDS else (self.host,)))

    def check(self, has_own_tokens: bool) -> None:
        """Refuse what would not be safe, or would not work.

        Raises:
            UserError: In one line, what to do.
        """
        if self.is_public and not has_own_tokens:
            raise UserError(
                f"--host {self.host} lets other machines in, so reviewers need tokens of your own: give --token-file, "
                "or set VOUCH_REVIEW_TOKEN for one reviewer"
            )
        if self.host in WILDCARDS and not self.names:
            raise UserError(f"--host {self.host} has no name for browsers; say by --name how they reach this machine")
        if self.trust_header is not None and not self.trusted_proxies:
            raise UserError("--trust-header needs --trusted-proxy: the address of the proxy that sets the header")
        check_networks(self.trusted_proxies)


def check_networks(networks: Sequence[str]) -> None:
    """Refuse what is no address or network.

    Raises:
        UserError: Names the first.
    """
    for network in networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise UserError(
                f"--trusted-proxy {network} is no address or network, such as 10.0.0.7 or 10.0.0.0/24"
            ) from None

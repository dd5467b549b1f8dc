"""Phone numbers, the access tokens that may act for them, and what has become of each token."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

import attrs

from meta_media.emulator.replies import GraphError
from meta_media.emulator.settings import Clock

__all__ = ["Accounts", "Token"]

_PROOF_LIFETIME: Final = 300  # seconds; Meta's page "Login security", section appsecret_proof
_SECONDS: Final = re.compile(r"[0-9]{1,12}")


@attrs.frozen(kw_only=True)
class Token:
    """
    An access token.

    Attributes:
        value: What clients send.
        numbers: The phone number ids it may act for.
        expires_at: When it dies, in unix seconds; None for never.
        forbidden: The error code that everything is refused with; None when it has all permissions.
    """

    value: str = attrs.field(repr=False)
    numbers: frozenset[str] = frozenset()
    expires_at: float | None = None
    forbidden: int | None = None


class Accounts:
    """All tokens by their value."""

    def __init__(self, clock: Clock, tokens: Mapping[str, Token]) -> None:
        self._clock = clock
        self._tokens = dict(tokens)

    def add(self, phone_number_id: str, access_token: str) -> Token:
        """Let a token, which is new or revived by this, act for a phone number."""
        numbers = self._tokens.get(access_token, Token(value=access_token)).numbers | {phone_number_id}
        return self._put(Token(value=access_token, numbers=numbers))

    def expire(self, access_token: str, seconds: float) -> Token:
        """Let a token die some seconds from now."""
        return self._put(attrs.evolve(self._known(access_token), expires_at=self._clock.now() + seconds))

    def forbid(self, access_token: str, code: int) -> Token:
        """Take a token's permissions away."""
        return self._put(attrs.evolve(self._known(access_token), forbidden=code))

    def authenticate(self, access_token: str | None) -> Token:
        """
        Find a token that is alive and has permissions.

        Raises:
            GraphError: There is none.
        """
        if not access_token:
            raise GraphError.no_token()
        token = self._tokens.get(access_token)
        if token is None:
            raise GraphError.unknown_token()
        if token.expires_at is not None and token.expires_at <= (now := self._clock.now()):
            raise GraphError.expired_token(token.expires_at, now)
        if token.forbidden is not None:
            raise GraphError.forbidden(token.forbidden)
        return token

    def check_proof(self, access_token: str, app_secret: str, query: Mapping[str, str], *, required: bool) -> None:
        """
        Check `appsecret_proof`, in its timed form and in the classic one.

        Raises:
            GraphError: It is wrong, too old, or missing although required.
        """
        proof = query.get("appsecret_proof")
        if proof is None:
            if required:
                raise GraphError.missing_proof()
            return
        signed, issued = access_token, query.get("appsecret_time")
        if issued is not None:
            signed = f"{access_token}|{issued}"
            if not _SECONDS.fullmatch(issued) or abs(self._clock.now() - int(issued)) > _PROOF_LIFETIME:
                raise GraphError.wrong_proof()
        expected = hmac.new(app_secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), proof.encode()):
            raise GraphError.wrong_proof()

    def _known(self, access_token: str) -> Token:
        if access_token not in self._tokens:
            raise LookupError("the emulator has no such access token: give it to add_account first")
        return self._tokens[access_token]

    def _put(self, token: Token) -> Token:
        self._tokens[token.value] = token
        return token

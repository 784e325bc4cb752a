"""What must never be printed: passwords and signatures in URIs, and how a literal secret is recognised."""

from __future__ import annotations

import re
from urllib.parse import unquote

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/*")
_LOGIN = re.compile(r"(?<=://)[^\s'\"]*@")
_BARE = re.compile(r"(?<![^\s'\"(=/])[^\s/:@'\"]+:(?!//)[^\s@'\"]+@(?!sha256:)")
_QUERY = re.compile(r"(?<=\w)[?#][^\s'\"]+")
_SECRET_WORDS = {"PASSWORD", "PASSWD", "PASS", "PASSPHRASE", "PWD", "SECRET", "SECRETS", "TOKEN", "KEY"} | {
    *("APIKEY", "CREDENTIAL", "CREDENTIALS", "AUTH", "DSN", "SIGNATURE", "COOKIE", "BEARER")
}
_PLACES = ("FILE", "PATH", "DIR", "NAME", "HOST", "PORT")
_PLAIN = frozenset({"", "0", "1", "true", "false", "yes", "no"})
_KNOWN = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bhf_\w{20,}"
    r"|\bxox[bp]-\w+|\bglpat-\w{10,}|\bey[\w-]{10,}\.ey[\w-]{10,}\."
)


def redact_uri(uri: str) -> str:
    """Return a URI without user, password, query and fragment, whatever its form.

    >>> redact_uri("http://me:pa@ss/word@host:5000/x?X-Amz-Signature=abc")
    'http://***@host:5000/x?***'
    >>> redact_uri("me:secret@host/x"), redact_uri("http:me:secret@host"), redact_uri("sqlite:///a/mlflow.db")
    ('***@host/x', '***@host', 'sqlite:///a/mlflow.db')
    >>> redact_uri("http://me%3Asecret%40host/x")
    'http://***'
    """
    shown = redact(uri)
    if shown.count("@") < unquote(uri).count("@") and "***" not in shown:
        scheme = _SCHEME.match(uri)
        return f"{scheme[0] if scheme else ''}***"
    return shown


def redact(text: str) -> str:
    """Return a text with the credentials of the URIs in it left out.

    >>> redact("cannot reach 'http://me:pa%40ss@host:5000/x': refused")
    "cannot reach 'http://***@host:5000/x': refused"
    """
    text = _LOGIN.sub("***@", text)
    text = _BARE.sub("***@", text)
    return _QUERY.sub(lambda found: f"{found[0][0]}***", text)


def has_login(text: str) -> bool:
    """Whether a URI in the text carries a password or a signature.

    >>> has_login("http://me:secret@host"), has_login("http://host/x?sig=abc"), has_login("http://host/?page=2")
    (True, True, False)
    """
    signed = re.search(r"[?&#](?:[\w-]*(?:sig|signature|token|key|secret|password|credential))=", text, re.I)
    return bool(re.search(r"://[^\s/]*:[^\s]*@", text) or _BARE.search(text) or signed)


def is_secret(name: str, value: str) -> bool:
    """Whether a variable's or an option's literal value is a secret, by its name or by its look.

    >>> is_secret("DB_PASSWORD", "x"), is_secret("TOKENIZERS_PARALLELISM", "x"), is_secret("TOKEN_FILE", "/x")
    (True, False, False)
    """
    words = re.split(r"[^A-Za-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper())
    named = bool(_SECRET_WORDS.intersection(words)) and words[-1] not in _PLACES
    return (named and value.lower() not in _PLAIN) or has_login(value) or bool(_KNOWN.search(value))

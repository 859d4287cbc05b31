"""Every password and token of a test, and the search for them in what larder prints and sends.

    password = secret("hub")            # a new one, remembered
    remember(text)                      # one that was made elsewhere
    assert_none_in(text, "the log")     # fails with the place, not with the secret

Searched for as it is, in base64 (alone and as user:password, whatever the user's name) and percent-encoded. `lib/larder.py` searches the log of
every larder, and every answer that a test gets from it."""

import base64
import random
import threading
import urllib.parse

_lock = threading.Lock()
_forms = {}     # what is searched for -> in words, what it is


def secret(what, size=24):
    """A text that stands nowhere else by chance."""
    text = "%s-%s" % (what, random.SystemRandom().randbytes(size).hex())
    remember(text, what)
    return text


def remember(text, what="a secret"):
    with _lock:
        for form, how in _written(text):
            _forms[form] = "%s%s" % (what, how)


def _written(text):
    yield urllib.parse.quote(text, safe=""), " percent-encoded"
    yield text, ""
    # Base64 of something that contains it: of the three ways in which its bytes can fall on groups of three, the middle is always the same.
    for skip in range(3):
        whole = base64.b64encode(b"\0" * skip + text.encode()).decode()
        yield whole[(skip * 8 + 5) // 6:len(whole) - 4], " in base64"


def found_in(text):
    """In words, what was found; None: nothing."""
    with _lock:
        forms = list(_forms.items())
    return next((what for form, what in forms if form in text), None)


def assert_none_in(text, where):
    what = found_in(text)
    assert what is None, "%s contains a secret: %s" % (where, what)

"""How the token goes to a Spark Connect server: over TLS, or in the clear where the address says so."""

import pytest

from bigdata_assets.resources.spark import _plaintext_channel

TOKEN = ("authorization", "Bearer a+b/c=")


def test_without_tls_the_token_goes_as_the_header_that_the_server_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", "another")
    channel = _plaintext_channel("sc://spark:15002/;use_ssl=false;token=a%2Bb%2Fc%3D")
    assert (channel.endpoint, channel.secure, TOKEN in channel.metadata()) == ("spark:15002", False, True)


def test_without_a_token_there_is_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", raising=False)
    assert "authorization" not in dict(_plaintext_channel("sc://spark:15002/;use_ssl=false").metadata())

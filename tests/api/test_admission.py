"""HEAD is answered as GET, at the door."""

import pytest


@pytest.mark.parametrize(
    "path", ["/", "/livez", "/readyz", "/info", "/metrics", "/docs", "/openapi.json", "/example"]
)
def test_head_is_answered_as_get_without_the_body(service, path):
    get, head = service.client.get(path), service.client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert (
        service.client.head("/predict").status_code
        == service.client.get("/predict").status_code
        == 405
    )
    assert service.client.head("/nothing").status_code == 404

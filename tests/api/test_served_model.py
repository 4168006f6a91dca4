"""What a request is scored with, opened without a service around it."""

import pytest

from api.served_model import ServedModel
from api.settings import Settings
from nrms.errors import ArtifactError


def test_articles_that_are_not_there_are_one_line_that_names_the_setting(world, tmp_path):
    missing = str(tmp_path / "articles.parquet")
    settings = Settings(model_uri=world.version, articles_uri=missing)
    with pytest.raises(ArtifactError, match=r"must be there.*Set ARTICLES_URI") as caught:
        ServedModel.load(settings, tmp_path)
    assert str(caught.value).startswith(missing)
    assert len(str(caught.value).splitlines()) == 1

"""What models read. Importing this package registers its kinds of inputs."""

from nrms.features import title

__all__ = ["title"]

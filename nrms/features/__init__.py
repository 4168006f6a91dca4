"""What models read. Importing the room registers the kinds of inputs that it has."""

from nrms.features import title

__all__ = ["title"]

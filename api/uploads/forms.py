"""Uploads that come as Parquet files, in a multipart form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette import formparsers
from starlette.datastructures import UploadFile

from api.uploads.contract import Decoded
from api.uploads.decoder_pool import DecoderPool

_PIECE = 1 << 20  # bytes that are copied at a time
# Of a part's head, which holds the name of the file. Starlette joins the head in memory, so it
# needs a limit.
HEAD_BYTES = 65_536


def allow_long_names() -> None:
    """Raises the parser's limit of 4 kB for a part's head, so that file names may be long.

    Starlette makes the parser without this argument, so only its default can be set.
    """
    defaults: Any = formparsers.multipart.MultipartParser.__init__.__kwdefaults__
    defaults["max_header_size"] = HEAD_BYTES


class FormUpload:
    """The files of one form.

    Args:
        files: by the part's name; None for a part that was not sent.
        decoders: what reads them.
        strings: whether the catalogue's article ids are strings, and not integers.
    """

    def __init__(
        self, files: Mapping[str, UploadFile | None], decoders: DecoderPool, strings: bool
    ) -> None:
        self._files = files
        self._decoders = decoders
        self._strings = strings

    def save(self, folder: Path) -> str:
        """Copies the files into the upload's folder. Gives the SHA-256 of their bytes.

        Raises:
            OSError: there is no room.
        """
        body = hashlib.sha256()
        for name, upload in self._files.items():
            if upload is not None:
                with (folder / name).open("wb") as target:
                    while chunk := upload.file.read(_PIECE):
                        target.write(chunk)
                        body.update(chunk)
        return body.hexdigest()

    def decode(self, folder: Path) -> Decoded:
        """Has them read by a child process. Raises what `DecoderPool.decode` raises."""
        return self._decoders.decode(folder, self._strings)

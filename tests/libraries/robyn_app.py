"""An application of Robyn that uploads what it is given, and says what became of it: `python robyn_app.py PORT`."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from meta_media import MediaApi, MediaError, Settings


async def attempt(source: Any, filename: str | None, **settings: Any) -> str:
    """Upload, and say what became of it."""
    async with MediaApi(settings=Settings(**settings)) as media:
        try:
            return json.dumps({"result": "done", "id": (await media.upload(source, filename=filename)).id})
        except MediaError as error:
            return json.dumps({"result": "refused", "error": type(error).__name__, "sentence": str(error)})
        except Exception as error:  # noqa: BLE001  this is what a row is about: a raw exception
            return json.dumps({"result": "raw", "error": type(error).__name__, "sentence": str(error)})


async def files(request: Any) -> str:
    """Upload the file of a form."""
    ((name, data),) = request.files.items()
    return await attempt(data, name)


async def body(request: Any) -> str:
    """Upload the body."""
    return await attempt(request.body, None)


async def strict(request: Any) -> str:
    """Upload the body, where a str is never a path."""
    return await attempt(request.body, None, str_paths=False)


if __name__ == "__main__":
    app = importlib.import_module("robyn").Robyn(__file__)
    for view in (files, body, strict):
        app.post(f"/{view.__name__}")(view)
    app.start(host="127.0.0.1", port=int(sys.argv[1]))

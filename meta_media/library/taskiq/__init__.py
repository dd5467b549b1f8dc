"""Uploads, downloads and deletes as taskiq tasks for a fleet of workers. Needs the extra `[taskiq]`."""

try:
    from meta_media.library.taskiq.results import RemoteError
    from meta_media.library.taskiq.tasks import MediaTasks, media_tasks
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "meta_media.library.taskiq needs a package: pip install '.[taskiq]' in a checkout", name=error.name
    ) from error

__all__ = ["MediaTasks", "RemoteError", "media_tasks"]

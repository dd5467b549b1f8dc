"""Media in a web application of Starlette or FastAPI: shown to browsers, and received by webhook. Needs the extra `[starlette]`."""

try:
    from meta_media.integrations.starlette.response import MediaResponse
    from meta_media.integrations.starlette.webhook import WebhookEndpoint, media_lifespan
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "meta_media.integrations.starlette needs a package: pip install '.[starlette]' in a checkout", name=error.name
    ) from error

__all__ = ["MediaResponse", "WebhookEndpoint", "media_lifespan"]

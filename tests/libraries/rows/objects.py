"""Clients of object stores: Amazon's, Google's, Microsoft's, and what stands on them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Final

from tests.libraries import servers
from tests.libraries.driver import Trial, lib
from tests.libraries.table import NAMELESS, PHOTO, AnyOf, Done, Refused, Table

__all__ = ["TABLE"]

TABLE: Final = Table()
MAYBE: Final = AnyOf((PHOTO, NAMELESS))
source = TABLE.source


async def s3(trial: Trial) -> Any:
    await trial.server(servers.moto)
    client = lib("boto3").client("s3")
    await asyncio.to_thread(client.put_object, Bucket="bucket", Key="photo.jpg", Body=trial.content, ContentType="image/jpeg")
    return client


async def boto3(trial: Trial) -> Any:
    client = await s3(trial)
    return await asyncio.to_thread(client.get_object, Bucket="bucket", Key="photo.jpg")


async def aioboto3(trial: Trial) -> Any:
    await s3(trial)
    client = await trial.aenter(lib("aioboto3").Session().client("s3"))
    return await client.get_object(Bucket="bucket", Key="photo.jpg")


async def body(trial: Trial, get: Any, method: str = "", *arguments: Any) -> Any:
    found = (await get(trial))["Body"]
    return getattr(found, method)(*arguments) if method else found


async def downloaded(trial: Trial) -> Any:
    buffer = lib("io").BytesIO()
    client = await s3(trial)
    await asyncio.to_thread(client.download_fileobj, "bucket", "photo.jpg", buffer)
    return buffer


async def entered(trial: Trial) -> Any:
    return await trial.aenter(await body(trial, aioboto3))


async def minio(trial: Trial) -> Any:
    await s3(trial)
    host = (await trial.server(servers.moto)).removeprefix("http://")
    client = lib("minio").Minio(host, access_key="test", secret_key="test", secure=False, region="us-east-1")
    response = await asyncio.to_thread(client.get_object, bucket_name="bucket", object_name="photo.jpg")
    trial.stack.callback(response.close)
    return response


async def filesystem(trial: Trial) -> Any:
    await s3(trial)
    return lib("s3fs").S3FileSystem(endpoint_url=await trial.server(servers.moto), skip_instance_cache=True)


async def s3_file(trial: Trial) -> Any:
    return trial.enter(await asyncio.to_thread((await filesystem(trial)).open, "bucket/photo.jpg", "rb"))


async def s3_async_file(trial: Trial) -> Any:
    await s3(trial)
    options = {"endpoint_url": await trial.server(servers.moto), "asynchronous": True, "skip_instance_cache": True}
    system = lib("s3fs").S3FileSystem(**options)
    session = await system.set_session()
    trial.stack.push_async_callback(session.close)
    return await trial.aenter(await system.open_async("bucket/photo.jpg", "rb"))


async def smart_open(trial: Trial) -> Any:
    client = await s3(trial)
    options = {"transport_params": {"client": client}}
    return trial.enter(await asyncio.to_thread(lib("smart_open").open, "s3://bucket/photo.jpg", "rb", **options))


async def gcloud(trial: Trial) -> Any:
    url = await trial.aenter(servers.website(trial.content))
    session = await trial.aenter(lib("aiohttp").ClientSession())
    storage = lib("gcloud.aio.storage").Storage(session=session, api_root=url.rstrip("/"))
    return await storage.download_stream("bucket", "photo.jpg")


async def azure(trial: Trial, package: str) -> Any:
    connection = await trial.server(servers.azurite)
    client = lib("azure.storage.blob").BlobServiceClient.from_connection_string(connection)
    trial.enter(client)

    def put() -> None:
        if not client.get_container_client("bucket").exists():
            client.create_container("bucket")
        settings = lib("azure.storage.blob").ContentSettings(content_type="image/jpeg")
        blob = client.get_blob_client("bucket", "photo.jpg")
        blob.upload_blob(trial.content, overwrite=True, content_settings=settings)

    await asyncio.to_thread(put)
    if package == "azure.storage.blob":
        return await asyncio.to_thread(client.get_blob_client("bucket", "photo.jpg").download_blob)
    aio = await trial.aenter(lib(package).BlobServiceClient.from_connection_string(connection))
    return await aio.get_blob_client("bucket", "photo.jpg").download_blob()


async def azure_chunks(trial: Trial, package: str) -> Any:
    return (await azure(trial, package)).chunks()


def memory(trial: Trial) -> str:
    lib("fsspec").filesystem("memory").pipe("/photo.jpg", trial.content)
    return "memory://photo.jpg"


async def obstore(trial: Trial) -> Any:
    store = lib("obstore.store").MemoryStore()
    await lib("obstore").put_async(store, "photo.jpg", trial.content)
    return store


async def obstore_reader(trial: Trial) -> Any:
    return await lib("obstore").open_reader_async(await obstore(trial), "photo.jpg")


async def obstore_result(trial: Trial, method: str = "") -> Any:
    result = await lib("obstore").get_async(await obstore(trial), "photo.jpg")
    return {"": lambda: result, "stream": result.stream, "bytes_async": result.bytes_async}[method]()


async def obstore_bytes(trial: Trial) -> Any:
    return await (await obstore_result(trial, "bytes_async"))


source("boto3: StreamingBody", NAMELESS, lambda t: body(t, boto3))
source("boto3: iter_chunks()", NAMELESS, lambda t: body(t, boto3, "iter_chunks", 65536))
source("boto3: the dict of get_object", Refused(r"dict|mapping"), boto3)
source("boto3: a buffer after download_fileobj", Refused(r"at its end.*seek\(0\)"), downloaded)
source("aioboto3: StreamingBody", MAYBE, lambda t: body(t, aioboto3))
source("aioboto3: iter_chunks()", NAMELESS, lambda t: body(t, aioboto3, "iter_chunks", 65536))
source("aioboto3: async with body", MAYBE, entered)
source("minio: get_object", MAYBE, minio)
source("smart_open: S3", PHOTO, smart_open)
source("s3fs: S3File", MAYBE, s3_file)
source("s3fs: open_async", MAYBE, s3_async_file)
source("fsspec: memory", MAYBE, lambda t: t.enter(lib("fsspec").open(memory(t), "rb")))
source("fsspec: local", PHOTO, lambda t: t.enter(lib("fsspec").open(f"file://{t.path}", "rb")))
source("fsspec: OpenFile that was not entered", AnyOf((PHOTO, Refused("OpenFile"))), lambda t: lib("fsspec").open(memory(t), "rb"))
source("gcloud-aio: StreamResponse", NAMELESS, gcloud)
source("azure: StorageStreamDownloader", PHOTO, lambda t: azure(t, "azure.storage.blob"))
source("azure: chunks()", NAMELESS, lambda t: azure_chunks(t, "azure.storage.blob"))
source("azure.aio: StorageStreamDownloader", PHOTO, lambda t: azure(t, "azure.storage.blob.aio"))
source("azure.aio: chunks()", NAMELESS, lambda t: azure_chunks(t, "azure.storage.blob.aio"))
source("obstore: reader", NAMELESS, obstore_reader)
source("obstore: stream", NAMELESS, lambda t: obstore_result(t, "stream"))
source("obstore: result", AnyOf((PHOTO, NAMELESS, Refused("GetResult"))), obstore_result)
source("obstore: Bytes", NAMELESS, obstore_bytes)


@TABLE.row("cloudpathlib: S3Path, which is fetched off the event loop", PHOTO)
async def _(trial: Trial) -> None:
    await s3(trial)
    threads = []
    client = lib("cloudpathlib").S3Client(local_cache_dir=trial.folder / "cache")
    fetch = client._download_file

    def fetched(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return fetch(*arguments)

    client._download_file = fetched
    await trial.upload(lib("cloudpathlib").S3Path("s3://bucket/photo.jpg", client=client))
    assert threading.main_thread() not in threads, "the object was fetched on the event loop"


@TABLE.row("s3path: S3Path", AnyOf((PHOTO, Refused("S3Path"))))
async def _(trial: Trial) -> None:
    await s3(trial)
    await trial.upload(lib("s3path").S3Path("/bucket/photo.jpg"))


@TABLE.row("s3path: S3Path, where a local file has that name", AnyOf((Done("photo.jpg"), Refused("S3Path"))))
async def _(trial: Trial) -> None:
    client = await s3(trial)
    bucket = str(trial.folder).strip("/").replace("/", ".").replace("_", "-").lower() + ".bucket"
    await asyncio.to_thread(client.create_bucket, Bucket=bucket)
    await asyncio.to_thread(client.put_object, Bucket=bucket, Key="photo.jpg", Body=trial.content)
    local = lib("pathlib").Path(f"/{bucket}")
    local.mkdir()
    trial.stack.callback(lib("shutil").rmtree, local)
    (local / "photo.jpg").write_bytes(b"\xff\xd8\xffanother photo")
    await trial.upload(lib("s3path").S3Path(f"/{bucket}/photo.jpg"))


async def upath(trial: Trial) -> Any:
    await s3(trial)
    return lib("upath").UPath("s3://bucket/photo.jpg", endpoint_url=await trial.server(servers.moto))


source("UPath: S3", PHOTO, upath)
source("UPath: memory", PHOTO, lambda t: lib("upath").UPath(memory(t)))
source("UPath: local", PHOTO, lambda t: lib("upath").UPath(t.path))

"""Makes the engine clear a folder on its host, which it may do where the worker may not.

The engine unpacks an archive into a container as root, mounted folders included, and without the
container ever being started. Where the archive has a file and the folder a folder of the same name,
the engine removes that folder with all that is in it.
"""

import io
import posixpath
import tarfile

from gyoza.worker.containers.docker_http import EngineHttp

NAMES_AT_ONCE = 1000


def replace_folders(client: EngineHttp, container_id: str, folder: str, names: list[str]) -> None:
    """See `ContainerEngine.replace_folders`."""
    parent, name = posixpath.split(folder)
    _unpack(client, container_id, parent, tarfile.DIRTYPE, [name])
    for at in range(0, len(names), NAMES_AT_ONCE):
        part = names[at : at + NAMES_AT_ONCE]
        _unpack(client, container_id, folder, tarfile.REGTYPE, part)


def _unpack(
    client: EngineHttp, container_id: str, path: str, kind: bytes, names: list[str]
) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o777
            archive.addfile(entry)
    headers = {"Content-Type": "application/x-tar"}
    target = f"/containers/{container_id}/archive"
    client.send("PUT", target, {"path": path}, body=data.getvalue(), headers=headers).drain_conn()

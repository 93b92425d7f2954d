"""The embedded vector store of notebooks 06, 07 and 10.

``MilvusClient`` tells neither a store in use elsewhere from a damaged one nor mends it.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

# An idle client's pings end in a complaint.
QUIET = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": 0}


def open_store(path: Path):
    """``MilvusClient(str(path))`` (notebook 06) for a client that may sit idle; ``path`` ends with ``.db``.

    A store whose files cannot be read is set aside as ``<name>-damaged.db``, with a printed line, and begun anew. Raises
    ``RuntimeError`` where another process, such as another notebook's kernel, has it open: an embedded store serves one at a time.
    """
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient
    from pymilvus.exceptions import ConnectionConfigException, MilvusException

    path.parent.mkdir(parents=True, exist_ok=True)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # both packages log a traceback before they raise
    try:
        client = MilvusClient(str(path), grpc_options=QUIET)
        for name in client.list_collections():
            client.describe_collection(name)  # reads the collection's files
    except ConnectionConfigException as error:
        raise RuntimeError(
            f"the store {path.name} is open in another process: shut that notebook's kernel down, then run this cell again "
            "(if none has it open: can its folder be written?)"
        ) from error
    except MilvusException as error:
        server_manager_instance.release_server(str(path))
        aside = path.with_name(f"{path.stem}-damaged.db")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        print(f"the store {path.name} cannot be read ({type(error).__name__}): it lies in {aside.name} now, a new one is begun")
        client = MilvusClient(str(path), grpc_options=QUIET)
    finally:
        logging.disable(disabled)
    return client

"""An XMPP server inside this process, for agents that live in it: on the loopback address alone, on free ports.

pyjabber by itself would also listen on the address of the local network, on fixed ports, serve web pages, leave
processes behind that hash passwords, and take the signals over.
"""

import asyncio
import contextlib
import shutil
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, Self

READY_S = 30.0
HOST = "localhost"  # what agents' names end with, and what pyjabber binds
_SIGNALS = (signal.SIGINT, signal.SIGABRT, signal.SIGTERM)
_WITHOUT = "urn:xmpp:http:upload:0"  # serves files on a port of its own


def import_server() -> Any:
    """pyjabber's module, silent, and without the directory that its mere import makes for files nobody uploads here."""
    found: Any = import_module("pyjabber.server")
    import_module("loguru").logger.disable("pyjabber")
    shutil.rmtree(import_module("pyjabber.plugins.xep_0363.upload_server").TEMP_DIR, ignore_errors=True)
    return found


class LoopbackXmpp:
    """`async with` it, in the thread of the event loop. `port` is where agents connect."""

    port = 0

    async def __aenter__(self) -> Self:
        """Listen, or raise `OSError`."""
        self._threads = ThreadPoolExecutor(1, "xmpp-password")
        try:
            self._server = self._make()
            handlers = [(number, signal.getsignal(number)) for number in _SIGNALS]
            self._task = asyncio.ensure_future(self._server.start())
            is_ready = asyncio.ensure_future(self._server.ready.wait())
            try:
                await asyncio.wait((is_ready, self._task), timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                is_ready.cancel()
                for number, handler in handlers:
                    signal.signal(number, handler)
            if not self._server.ready.is_set():
                raise OSError(f"the embedded XMPP server did not listen within {READY_S:.0f} s")
            self.port = int(self._server._client_listener.sockets[0].getsockname()[1])  # noqa: SLF001
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Listen no more; nothing is left."""
        task: asyncio.Task[Any] | None = getattr(self, "_task", None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, SystemExit):
                await task
        self._threads.shutdown()

    def _make(self) -> Any:
        with tempfile.TemporaryDirectory(prefix="runlane-xmpp-") as directory:  # read now, and never again
            return self._make_with(Path(directory))

    def _make_with(self, certificates: Path) -> Any:
        server_module = import_server()
        parameters: Any = import_module("pyjabber.server_parameters").Parameters
        app_config: Any = import_module("pyjabber.AppConfig")
        authority = Path(server_module.SERVER_FILE_PATH) / "network" / "certs"
        for name in ("ca_cert.pem", "ca_key.pem"):  # its own place may be one where nothing can be written
            shutil.copy(authority / name, certificates)
        shipped = parameters()
        server = server_module.Server(
            parameters(
                host=HOST,
                client_port=0,
                server_port=0,
                database_in_memory=True,
                cert_path=str(certificates),
                plugins=[plugin for plugin in shipped.plugins if plugin != _WITHOUT],
                items={name: item for name, item in shipped.items.items() if name != "upload.$"},
            )
        )
        server._public_ip = None  # noqa: SLF001  the address of the local network
        known = app_config.app_config
        known.process_pool_exe.shutdown()
        app_config.app_config = import_module("attrs").evolve(known, process_pool_exe=self._threads, ip=["127.0.0.1"])
        return server

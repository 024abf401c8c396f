"""The AWS API on this machine: a real moto server in a process of its own, for as long as a `with` block lasts.

Not named `moto.py`: a file of that name would hide the package from scripts in this folder.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

READY_WITHIN = 60.0
STOP_WITHIN = 5.0


def environment() -> dict[str, str]:
    """This process's environment with made-up credentials, so that real ones are never used nor needed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {
        "AWS_ACCESS_KEY_ID": "moto",
        "AWS_SECRET_ACCESS_KEY": "moto",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@contextmanager
def moto_server() -> Generator[str]:
    """Start a server on a free port of the loopback address, give its url, and stop it at the end of the block.

    It ends with this process even if that is killed: it waits on a pipe whose other end only this process holds.

    Raises:
        RuntimeError: It did not start; says why.
    """
    server = subprocess.Popen(
        # -P: this folder's files must not hide packages.
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        answered, _, _ = select.select([server.stdout], [], [], READY_WITHIN)
        url = server.stdout.readline().strip() if answered else ""
        if not url:
            raise RuntimeError(
                f"the moto server did not start within {READY_WITHIN:g} s (exit code: {server.poll()}); "
                "its messages stand above. It needs: pip install 'moto[ec2,server]'"
            )
        yield url
    finally:
        server.stdin.close()
        try:
            server.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()


def _serve() -> None:
    # Port 0: the system picks one that is free, and nobody can take it between the choice and the use.
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.read()  # ends when the starting process closes the pipe, or has died; the server thread goes along


if __name__ == "__main__":
    _serve()

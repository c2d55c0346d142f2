"""Real servers for the tests, on free ports of this machine, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_until_up(url: str, process: subprocess.Popen) -> None:
    deadline = time.time() + 120
    while time.time() < deadline:
        assert process.poll() is None, "the server died"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not come up")


@contextmanager
def running(command: list[str], **options) -> Iterator[subprocess.Popen]:
    """A process and what it starts, in a group of its own."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               **options)  # fmt: skip
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(20)
                break
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break


def postgres_programs() -> Path | None:
    """Where Debian, or the PATH, has PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    there = shutil.which("initdb")
    return found[-1].parent if found else Path(there).parent if there else None


@contextmanager
def postgres(folder: Path, prefix: tuple[str, ...] = (), host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """A PostgreSQL with its data in a folder; its address without a database's name.

    Args:
        prefix: a command that runs others elsewhere, say in a network namespace.
    """
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    data, port = folder / "data", port or free_port()
    as_user: tuple[str, ...] = ()
    if os.getuid() == 0:  # it refuses to run as root
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("there is no user `postgres` to run PostgreSQL as")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, "postgres")
        for above in folder.parents:  # pytest's folders are closed to others
            if above.is_relative_to("/tmp") and above != Path("/tmp"):
                above.chmod(above.stat().st_mode | 0o011)
        as_user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    if not data.exists():
        made = subprocess.run([*as_user, programs / "initdb", "-D", data, "-U", "arbooth", "-A", "trust", "-N"],
                              capture_output=True, text=True, cwd="/")  # fmt: skip
        assert made.returncode == 0, made.stderr
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 trust\n")
    command = [*prefix, *as_user, str(programs / "postgres"), "-D", str(data), "-h", host, "-p", str(port), "-k", "",
               "-c", "fsync=off", "-c", "max_connections=200"]  # fmt: skip
    with running(command, cwd="/") as server:
        url = f"postgresql://arbooth@{host}:{port}"
        for _ in range(100):
            ready = subprocess.run([*prefix, programs / "pg_isready", "-h", host, "-p", str(port)], capture_output=True)
            if ready.returncode == 0:
                break
            assert server.poll() is None, "PostgreSQL died"
            time.sleep(0.1)
        yield url


def create_database(url: str, name: str, prefix: tuple[str, ...] = ()) -> str:
    """A database in a running PostgreSQL; its address."""
    programs = postgres_programs()
    assert programs is not None
    subprocess.run([*prefix, programs / "psql", f"{url}/postgres", "-qc", f"CREATE DATABASE {name}"], check=True,
                   capture_output=True)  # fmt: skip
    return f"{url}/{name}"


def mlflow_command(backend: str, artifacts: Path, host: str, port: int, hosts: str = "") -> list[str]:
    """A server that hands artifacts on, in two processes instead of fourteen."""
    return [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", host, "--port", str(port),
            "--backend-store-uri", backend, "--artifacts-destination", str(artifacts),
            *(["--allowed-hosts", hosts] if hosts else [])]  # fmt: skip


SERVER = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def mlflow_server(backend: str, folder: Path) -> Iterator[str]:
    port = free_port()
    command = mlflow_command(backend, folder / "served", "127.0.0.1", port)
    with running(command, cwd=folder, env={**os.environ, **SERVER}) as server:
        wait_until_up(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"

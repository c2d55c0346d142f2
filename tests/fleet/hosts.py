"""Several hosts on one machine: network namespaces with their own addresses, homes and folders."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.services import postgres_programs

NEEDED = {"ip": "iproute2", "git": "git", "/usr/sbin/sshd": "openssh-server", "ssh": "openssh-client"}
DOC = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")


def skip_unless_possible() -> None:
    if os.getuid() != 0:
        pytest.skip("network namespaces need root")
    for program, package in NEEDED.items():
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed here: apt-get install {package}")
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    if subprocess.run(["ip", "netns", "add", "arbooth-probe"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here")
    subprocess.run(["ip", "netns", "del", "arbooth-probe"], check=True)


def blocks(tag: str) -> list[str]:
    """The shell blocks of docs/fleet.md with a tag after `sh`, in order."""
    return re.findall(rf"^```sh {tag}\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)


class Host:
    """One of them: what is started on it ends with it."""

    def __init__(self, net: Net, name: str, number: int) -> None:
        self.net, self.name, self.address = net, name, f"{net.prefix}.{number}"
        self.space, self.link = f"{net.tag}{number}", f"{net.tag}{number}v"
        self.home = net.folder / name / "home"
        self.home.mkdir(parents=True)
        self.processes: list[subprocess.Popen] = []
        for line in (
            f"netns add {self.space}",
            f"link add {self.link} type veth peer name eth0 netns {self.space}",
            f"link set {self.link} master {net.bridge} up",
            f"-n {self.space} addr add {self.address}/24 dev eth0",
            f"-n {self.space} link set eth0 up",
            f"-n {self.space} link set lo up",
        ):
            subprocess.run(["ip", *line.split()], check=True, capture_output=True)

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ARBOOTH_", "MLFLOW_", "PREFECT_", "PYTEST"))}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "SERVER": f"{self.net.prefix}.1",
            "DATA": str(self.net.folder / "server" / "data"),
            "CHECKOUT": f"on-{self.name}/animals",
            "GIT_SSH_COMMAND": f"ssh -F {self.home}/.ssh/config",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
            "ARBOOTH_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    @property
    def inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.space]

    def run(self, script: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess:
        done = subprocess.run([*self.inside, "bash", "-ec", script], cwd=self.home, capture_output=True, text=True,
                              env={**self.environment, **variables})  # fmt: skip
        assert not check or done.returncode == 0, f"{self.name}: {script}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, script: str, **variables: str) -> subprocess.Popen:
        """In the background, in a session of its own; what it says goes to a file beside the home."""
        log = (self.home.parent / f"{len(self.processes)}.log").open("w")
        process = subprocess.Popen([*self.inside, "bash", "-ec", script], cwd=self.home, start_new_session=True,
                                   env={**self.environment, **variables}, stdout=log, stderr=log)  # fmt: skip
        self.processes.append(process)
        return process

    def pids(self) -> list[int]:
        found = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True).stdout
        return [int(word) for word in found.split()]

    def commands(self) -> dict[int, str]:
        """Every process of the host, by its command line."""
        found = {}
        for pid in self.pids():
            with suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def kill(self, words: str, number: int = signal.SIGKILL) -> list[str]:
        """End every process whose command line holds these words; their command lines."""
        killed = []
        for pid, command in self.commands().items():
            if words in command:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                    killed.append(command)
        return killed

    def cut(self, off: bool = True) -> None:
        """Take the host's cable out, or put it back."""
        subprocess.run(["ip", "link", "set", self.link, "down" if off else "up"], check=True)

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.home.parent.glob("*.log")))

    def end(self) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        subprocess.run(["ip", "netns", "del", self.space], capture_output=True)


class Net:
    """A bridge and the hosts on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tag = folder, f"ab{os.getpid() % 100000}x"
        self.prefix = f"10.231.{os.getpid() % 250 + 1}"
        self.bridge = f"{self.tag}b"
        self.hosts: list[Host] = []
        for line in (f"link add {self.bridge} type bridge", f"link set {self.bridge} up"):
            subprocess.run(["ip", *line.split()], check=True, capture_output=True)

    def host(self, name: str) -> Host:
        self.hosts.append(Host(self, name, len(self.hosts) + 1))
        return self.hosts[-1]

    def end(self) -> None:
        for host in reversed(self.hosts):
            host.end()
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)


def serve_ssh(server: Host, clients: list[Host]) -> None:
    """An SSH server that lets the clients' own keys in, and they know its key."""
    folder = server.home.parent / "ssh"
    folder.mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"]
    subprocess.run([*make, folder / "host"], check=True)
    known = f"{server.address} {(folder / 'host.pub').read_text()}"
    allowed = []
    for client in clients:
        own = client.home / ".ssh"
        own.mkdir(mode=0o700)
        subprocess.run([*make, own / "id_ed25519"], check=True)
        allowed.append((own / "id_ed25519.pub").read_text())
        (own / "known_hosts").write_text(known)
        (own / "config").write_text(f"Host {server.address}\n  User root\n  IdentityFile {own}/id_ed25519\n"
                                    f"  UserKnownHostsFile {own}/known_hosts\n  ConnectTimeout 10\n")  # fmt: skip
    (folder / "allowed").write_text("".join(allowed))
    (folder / "config").write_text(
        f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/allowed\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\nMaxStartups 100\n"
    )
    server.start(f"exec /usr/sbin/sshd -D -e -f {folder}/config")


def wait_for(what, seconds: float, every: float = 1.0):
    """The first true answer of a question that is asked again and again."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(every)

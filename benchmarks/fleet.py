"""What a fleet costs as it grows: python -m benchmarks.fleet PROJECT [--subjects 10 200 1000] [--postgres URL].

PROJECT holds one finished subject (say, this repository after `make demo`). It is copied under many names with its
outputs, so nothing is trained: only the work of DVC, Prefect, MLflow and arbooth itself is timed, in a project with a
git remote and a DVC remote (folders), a real Prefect server, a real worker and a real registry. Every copy's adapter
bears its own name, and its record says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

from arbooth.data.adapters import read_adapter, write_adapter
from arbooth.project import Project
from benchmarks.growth import grown


def fleet_of(source: Project, top: Path, count: int) -> tuple[Project, list[str]]:
    """A project of `count` finished subjects with both remotes, committed and pushed."""
    project, names = grown(source, top / "project", count)
    (project.root / ".dvc" / "config.local").unlink(missing_ok=True)
    (project.root / ".arbooth" / "home").unlink()
    for command in (
        "git init -q -b main",
        "git config user.email a@b.c",
        "git config user.name a",
        f"git init -q --bare {top / 'remote.git'}",
        f"git remote add origin {top / 'remote.git'}",
        f"dvc remote add -q --default storage {top / 'remote'}",
        f"dvc config --local cache.dir {source.cache()}",
        f"dvc add -q photos/{names[0]}",
    ):
        run(project, *command.split())
    tracked = (project.root / "photos" / f"{names[0]}.dvc").read_text(encoding="utf-8")
    cache = source.cache()
    for name in names:
        (project.root / "photos" / f"{name}.dvc").write_text(tracked.replace(f"path: {names[0]}", f"path: {name}"))
        _own_adapter(project, names[0], name, cache)
    run(project, "dvc", "push", "-q", f"photos/{names[0]}.dvc", f"subjects/{names[-1]}/dvc.yaml",
        *(f"classes/{path.parent.name}/dvc.yaml" for path in project.root.glob("classes/*/dvc.yaml")))  # fmt: skip
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", f"{count} subjects")
    run(project, "git", "push", "-q", "-u", "origin", "main")
    return project, names


def _own_adapter(project: Project, first: str, name: str, cache: Path) -> None:
    """The first subject's adapter under another name, in the cache and in DVC's record as well."""
    path = project.root / "artifacts" / "finetune" / f"{name}.safetensors"
    before = hashlib.md5(path.read_bytes()).hexdigest()
    adapter = read_adapter(path)
    if adapter.subject == name:
        return
    path.unlink()
    write_adapter(path, replace(adapter, subject=name))
    after = hashlib.md5(path.read_bytes()).hexdigest()
    kept = cache / "files" / "md5" / after[:2] / after[2:]
    kept.parent.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        shutil.copy(path, kept)
    lock = project.root / "subjects" / name / "dvc.lock"
    lock.write_text(lock.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")


def run(project: Project, *command: str) -> str:
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "ARBOOTH_PROJECT": str(project.root),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def seconds(project: Project, *command: str) -> float:
    started = time.perf_counter()
    run(project, *command)
    return time.perf_counter() - started


class Servers:
    """A Prefect server, and a worker while it is asked for."""

    def __init__(self, folder: Path, postgres: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        os.environ.update(
            PREFECT_HOME=str(folder / "prefect"),
            PREFECT_API_URL=f"http://127.0.0.1:{self.port}/api",
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            PREFECT_WORKER_QUERY_SECONDS="1",
            MLFLOW_DISABLE_TELEMETRY="true",
            DO_NOT_TRACK="1",
        )
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if postgres:
            asynchronous = postgres.replace("postgresql://", "postgresql+asyncpg://")
            os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = asynchronous
        self.started = [self._start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))]
        for _ in range(240):
            try:
                self.ask("/health")
                return
            except OSError:
                time.sleep(0.5)
        raise SystemExit("the Prefect server did not start")

    def _start(self, *command: str, cwd: Path | None = None) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=cwd, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def work(self, project: Project) -> None:
        os.environ["ARBOOTH_PROJECT"] = str(project.root)
        self.started.append(self._start("arbooth", "fleet", "work", cwd=project.root))

    def ask(self, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(
            f"{os.environ['PREFECT_API_URL']}{path}", data, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def finished(self, name: str, patience: float = 600) -> float:
        """Wait for the newest run of a name; how long its work took, from the flow's start to its end."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            runs = self.ask(
                "/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_DESC"}
            )
            if runs and runs[0]["state_type"] in ("COMPLETED", "FAILED"):
                if runs[0]["state_type"] == "FAILED":
                    raise SystemExit(f"{name}: {runs[0]['state']['message']}")
                return float(runs[0]["total_run_time"])
            time.sleep(0.5)
        raise SystemExit(f"{name} did not end")

    def end(self) -> None:
        for process in reversed(self.started):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def measure(source: Project, count: int, postgres: str) -> dict[str, float]:
    """Seconds of each thing in a project of `count` subjects."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=source.root.parent) as folder:
        top = Path(folder)
        project, names = fleet_of(source, top, count)
        photos, last = str(project.root / "photos" / names[0]), names[-1]
        servers = Servers(top, postgres)
        try:
            found["subject add"] = seconds(
                project, "arbooth", "subject", "add", "one-more", "--class", "dog", "--photos", photos
            )
            run(project, "arbooth", "subject", "remove", "one-more")
            run(project, "git", "checkout", "-q", ".")
            found["deploy, first"] = seconds(project, "arbooth", "fleet", "deploy")
            found["deploy, nothing new"] = seconds(project, "arbooth", "fleet", "deploy")
            found["trigger all"] = seconds(project, "arbooth", "fleet", "run")
            found["status"] = seconds(project, "arbooth", "fleet", "status")
            found["cancel all"] = seconds(project, "arbooth", "fleet", "cancel")
            found["summarize"] = seconds(project, "arbooth", "stage", "summarize")
            found["publish, first"] = seconds(project, "arbooth", "stage", "publish")
            found["publish, nothing new"] = seconds(project, "arbooth", "stage", "publish")
            report = sum(
                path.stat().st_size for path in (project.root / "artifacts" / "report").rglob("*") if path.is_file()
            )
            found["report, MB"] = report / 1e6
            servers.work(project)
            run(project, "arbooth", "fleet", "run", "--only", last)
            servers.finished(f"personalize-{last}")
            servers.finished(f"publish-{last}")
            # The second time every stage is found done: what is left is all that is not its own work.
            run(project, "arbooth", "fleet", "run", "--only", last)
            found["one subject, all but its stages"] = servers.finished(f"personalize-{last}")
            found["collect"] = seconds(project, "arbooth", "fleet", "collect")
        finally:
            servers.end()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path, help="a project whose first subject is finished")
    parser.add_argument("--subjects", type=int, nargs="+", default=[10, 200, 1000])
    parser.add_argument("--postgres", default="", help="address of an empty PostgreSQL database for Prefect [SQLite]")
    given = parser.parse_args()
    source = Project(given.project)
    columns = {}
    for count in given.subjects:
        columns[count] = measure(source, count, given.postgres)
        print(f"{count} subjects: {json.dumps({k: round(v, 2) for k, v in columns[count].items()})}", flush=True)
    print(f"\n| seconds | {' | '.join(f'{count} subjects' for count in columns)} |\n|---|{'---|' * len(columns)}")
    for name in next(iter(columns.values())):
        print(f"| {name} | {' | '.join(f'{column[name]:.1f}' for column in columns.values())} |")


if __name__ == "__main__":
    main()

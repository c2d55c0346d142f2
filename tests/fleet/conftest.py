"""A server, two machines that work and a desk; twelve subjects of five classes, added, pushed and deployed."""

from __future__ import annotations

import json
import subprocess

import pytest
from PIL import Image, ImageOps

from tests.conftest import ROOT, fast
from tests.fleet.hosts import Host, Net, blocks, serve_ssh, skip_unless_possible, wait_for
from tests.services import postgres

CLASSES = {
    "dog": ("rex", "bello", "wolf"),
    "cat": ("tom", "mimi", "felix"),
    "car": ("flash", "beetle"),
    "bird": ("tweety", "polly"),
    "horse": ("star", "storm"),
}
SUBJECTS = {name: noun for noun, names in CLASSES.items() for name in names}


class Fleet:
    def __init__(self, net: Net) -> None:
        self.net = net
        self.server, self.one, self.two, self.desk = (net.host(name) for name in ("server", "one", "two", "desk"))
        self.hosts = {"one": self.one, "two": self.two}

    def command(self, line: str, check: bool = True, host: Host | None = None) -> subprocess.CompletedProcess:
        """A command in the desk's checkout, with both addresses."""
        addresses = "export PREFECT_API_URL=http://$SERVER:4200/api MLFLOW_TRACKING_URI=http://$SERVER:5000"
        return (host or self.desk).run(f"cd ~/animals; {addresses}; {line}", check)

    def api(self, path: str, body: dict | None = None, method: str | None = None):
        """Prefect's API, asked from the server's own host."""
        script = (
            "import json, os, sys, urllib.request as u\n"
            "path, body, method = json.loads(sys.stdin.read())\n"
            "url = f\"http://{os.environ['SERVER']}:4200/api{path}\"\n"
            "data = None if body is None else json.dumps(body).encode()\n"
            "asked = u.Request(url, data, {'content-type': 'application/json'}, method=method)\n"
            "print(u.urlopen(asked, timeout=20).read().decode() or 'null')\n"
        )
        done = subprocess.run([*self.server.inside, "python3", "-c", script], env=self.server.environment, text=True,
                              input=json.dumps([path, body, method]), capture_output=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def wait_until_done(self, seconds: float, subjects=tuple(SUBJECTS)) -> None:
        """Until each is personalised and published; asked of the server itself, which costs less than the table."""

        def done():
            try:
                runs = self.api("/flow_runs/filter", {"limit": 200, "sort": "EXPECTED_START_TIME_DESC"})
            except AssertionError:  # the server is away, which some tests want
                return False
            latest: dict[str, str] = {}
            for run in runs:
                latest.setdefault(run["name"], run["state_name"])
            kinds = ("personalize", "publish")
            return all(latest.get(f"{kind}-{name}") == "Completed" for kind in kinds for name in subjects)

        assert wait_for(done, seconds, 3), self.command("arbooth fleet status").stdout

    def start_worker(self, name: str) -> None:
        (script,) = blocks("worker-background")
        host = self.hosts[name]
        if (host.home / host.environment["CHECKOUT"]).exists():
            script = "\n".join(line for line in script.splitlines() if not line.startswith("git clone"))
        host.start(script, ARBOOTH_CHECKPOINT_SECONDS="1")

    def is_up(self, port: int, path: str) -> bool:
        script = f"python3 -c \"import urllib.request as u; u.urlopen('http://$SERVER:{port}{path}', timeout=2)\""
        return self.server.run(script, check=False).returncode == 0


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    skip_unless_possible()
    folder = tmp_path_factory.mktemp("fleet")
    net = Net(folder)
    try:
        yield from _started(net, folder)
    finally:
        net.end()


def _started(net: Net, folder):
    own = Fleet(net)
    server, desk = own.server, own.desk
    serve_ssh(server, [server, own.one, own.two, desk])
    with postgres(folder / "postgres", tuple(server.inside), server.address, 5432):
        own.database = folder / "postgres"
        (prepare,) = blocks("server")
        server.run(prepare)
        own.servers = blocks("server-background")
        for script in own.servers:
            server.start(script)
        assert wait_for(lambda: own.is_up(4200, "/api/health") and own.is_up(5000, "/health"), 120), server.logs()
        first, second, third = blocks("desk")
        own.run_block = third
        for host in (own.one, own.two, desk):
            host.run("git config --global user.email a@b.c; git config --global user.name a; "
                     "git config --global init.defaultBranch main")  # fmt: skip
        desk.run(first)
        params = desk.home / "animals" / "params.yaml"
        params.write_text(fast(params.read_text()))
        (subject,) = blocks("desk-subject")
        for index, (name, noun) in enumerate(SUBJECTS.items()):
            _photos(desk.home / "Pictures" / name, index)
            desk.run(subject, NAME=name, NOUN=noun)
        own.deployed = desk.run(second).stdout
        for name in own.hosts:
            own.start_worker(name)
        yield own


def _photos(folder, index: int) -> None:
    """The demo's photos with other colours: twelve subjects that differ."""
    folder.mkdir(parents=True)
    for path in sorted((ROOT / "photos" / "poodle").iterdir())[: 2 + index % 3]:
        with Image.open(path) as photo:
            hue, saturation, value = photo.convert("RGB").convert("HSV").split()
            turned = hue.point(lambda h: (h + 20 * index) % 256)
            picture = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
            (ImageOps.mirror(picture) if index % 2 else picture).save(folder / f"{path.stem}.png")

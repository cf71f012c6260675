"""docker-compose.yml and the image."""

import re
import shutil
import subprocess
import tomllib
import unittest

import yaml

from support import ROOT, carillon, run, text

COMPOSE = yaml.safe_load(text("docker-compose.yml"))
SERVICES = COMPOSE["services"]
OURS = ("router", "publisher", "edge-1", "edge-2")


class Compose(unittest.TestCase):
    def test_there_is_a_cluster_behind_a_proxy(self):
        usual = {name for name, service in SERVICES.items() if "profiles" not in service}
        self.assertEqual(usual, {"nats", "proxy", *OURS})
        nats = [name for name in SERVICES if re.fullmatch(r"nats(-\d)?", name)]
        self.assertEqual(len(nats), 3)

    def test_every_port_is_on_the_loopback_interface(self):
        ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
        self.assertGreater(len(ports), 8)
        for port in ports:
            self.assertTrue(port.startswith("127.0.0.1:"), port)
        self.assertEqual(len(ports), len(set(ports)))

    def test_health_is_checked_without_a_shell(self):
        for name in OURS:
            check = SERVICES[name]["healthcheck"]["test"]
            self.assertEqual(check[:3], ["CMD", "/usr/local/bin/carillon", "healthcheck"])
            self.assertTrue(check[3].endswith("/readyz"))
        for name, service in SERVICES.items():
            if "profiles" not in service:
                self.assertIn("healthcheck", service, name)

    def test_edges_may_drain_before_they_are_killed(self):
        settings = tomllib.loads(text("deploy", "compose", "carillon.toml"))
        drain = settings["edge"].get("drain", "30s")
        for name in ("edge-1", "edge-2"):
            self.assertGreater(int(SERVICES[name]["stop_grace_period"].rstrip("s")), int(drain.rstrip("s")))

    def test_containers_have_no_privileges(self):
        for name in (*OURS, "nats", "proxy"):
            service = SERVICES[name]
            self.assertIs(service["read_only"], True, name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)

    def test_each_server_keeps_its_own_files(self):
        volumes = [v for name in ("nats", "nats-2", "nats-3") for v in SERVICES[name]["volumes"] if v.endswith(":/data")]
        self.assertEqual(len(set(volumes)), 3)
        for volume in volumes:
            self.assertIn(volume.split(":")[0], COMPOSE["volumes"])

    def test_files_that_are_mounted_exist(self):
        for name, service in SERVICES.items():
            for volume in service.get("volumes", []):
                source = re.sub(r"^\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
                if source.startswith("./"):
                    self.assertTrue((ROOT / source).exists(), f"{name}: {source}")

    def test_the_settings_are_accepted(self):
        variables = {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for key, value in SERVICES["edge-1"]["environment"].items() if value}
        del variables["CARILLON_CONFIG"]
        run(carillon(), "check", "--config", str(ROOT / "deploy/compose/carillon.toml"), env=variables)

    def test_compose_accepts_the_file_with_every_set_of_variables(self):
        command = next((c for c in (["docker-compose"], ["docker", "compose"]) if works(c)), None)
        if not command:
            self.skipTest("docker-compose is not installed")
        run(*command, "-f", str(ROOT / "docker-compose.yml"), "config")
        for file in sorted((ROOT / "deploy/compose").glob("*.env")):
            output = run(*command, "-f", str(ROOT / "docker-compose.yml"), "--env-file", str(file), "config")
            replicas = re.findall(r"CARILLON_NATS__REPLICAS: '?\"?(\w+)", output)
            self.assertEqual(set(replicas) == {"3"}, file.stem in ("cluster", "all"), file.name)


class Proxy(unittest.TestCase):
    CONFIG = text("deploy", "proxy", "haproxy.cfg")

    def test_it_is_a_plain_round_robin(self):
        self.assertIn("balance roundrobin", self.CONFIG)
        for word in ("cookie", "stick", "balance source", "hash-type", "prefer-last-server"):
            self.assertNotIn(word, self.CONFIG)

    def test_it_waits_longer_than_a_ping(self):
        for name in ("client", "server"):
            seconds = int(re.search(rf"timeout {name} (\d+)s", self.CONFIG).group(1))
            self.assertGreater(seconds, 25 + 20)
        self.assertRegex(self.CONFIG, r"timeout tunnel \d+h")

    def test_it_knows_every_edge_and_asks_whether_it_is_ready(self):
        servers = re.findall(r"^\s+server (\S+) \1:7000 port 8000$", self.CONFIG, re.M)
        self.assertEqual(servers, ["edge-1", "edge-2"])
        self.assertIn("option httpchk GET /readyz", self.CONFIG)


class Image(unittest.TestCase):
    FILE = text("deploy", "Dockerfile")

    def test_the_old_builder_understands_it(self):
        for syntax in ("--mount", "--link", "--chmod", "<<", "# syntax", "--parents", "--exclude"):
            self.assertNotIn(syntax, self.FILE)

    def test_it_runs_as_nobody_without_a_shell(self):
        last = self.FILE[self.FILE.rindex("\nFROM "):]
        self.assertIn("gcr.io/distroless/cc-debian12:nonroot", last)
        self.assertIn("USER 65532:65532", last)
        self.assertIn('ENTRYPOINT ["/usr/local/bin/carillon"]', last)
        self.assertNotIn("\nRUN ", last)

    def test_dependencies_are_built_before_the_sources_come(self):
        build = self.FILE[self.FILE.index("AS build"):]
        first, sources, second = (build.index(part) for part in ("cargo build", "COPY crates", "touch {}"))
        self.assertLess(first, sources)
        self.assertLess(sources, second)

    def test_every_member_of_the_workspace_is_copied(self):
        members = tomllib.loads(text("Cargo.toml"))["workspace"]["members"]
        ignored = text(".dockerignore").splitlines()
        for folder in {member.split("/")[0] for member in members}:
            self.assertEqual(self.FILE.count(f"COPY {folder} {folder}"), 2, folder)
            self.assertIn("!" + folder, ignored)

    def test_the_toolchain_is_the_pinned_one(self):
        channel = tomllib.loads(text("rust-toolchain.toml"))["toolchain"]["channel"]
        for version in re.findall(r"FROM rust:(\S+)-bookworm", self.FILE):
            self.assertTrue(channel.startswith(version), version)


def works(command):
    if not shutil.which(command[0]):
        return False
    return subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0

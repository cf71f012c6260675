"""The examples of NATS configurations, asked of a real server."""

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time
import unittest

from support import ROOT, run, tool

FOLDER = ROOT / "deploy" / "nats"
PASSWORDS = {f"{name}_PASSWORD": name.lower() + "-pw" for name in ("CARILLON", "CHAT", "MAIN", "ORDERS", "SYS")}


class Configurations(unittest.TestCase):
    def test_the_server_accepts_each(self):
        for file in ("single.conf", "cluster.conf"):
            run(tool("nats-server"), "-t", "-c", str(FOLDER / file), env={"NATS_NAME": "n1"})

    def test_messages_may_be_larger_than_an_event(self):
        for file in ("single.conf", "cluster.conf"):
            self.assertIn("max_payload: 2MB", (FOLDER / file).read_text())


class Accounts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.port = cls.stack.enter_context(server())

    def refused(self, user, *commands):
        """Sends commands of the protocol and tells whether the server complains."""
        with Client(self.port, user, PASSWORDS[user.upper() + "_PASSWORD"]) as client:
            return client.refuses(*commands)

    def test_a_team_publishes_only_in_its_namespace(self):
        for subject, refused in (
            ("rt.pub.chat.room", False),
            ("rt.pub.chat.user:42", False),
            ("rt.signal.chat.room", False),
            ("rt.presence.chat.room", False),
            ("rt.ask.chat.room", False),
            ("rt.ctl.chat.disconnect", False),
            ("rt.pub.main.room", True),
            ("rt.signal.main.room", True),
            ("rt.ctl.main.disconnect", True),
            ("rt.pub.chat2.room", True),
        ):
            with self.subTest(subject):
                self.assertIs(self.refused("chat", f"PUB {subject} 0\r\n"), refused)

    def test_no_team_reaches_what_carillon_keeps_for_itself(self):
        for kind in ("out.chat.r.room", "event.chat.r.room", "edge.e1.order", "edge.all.revoked", "sync.RT_EVENTS", "ingest.0.chat.room",
                     "lifecycle.chat.x", "up.chat.x", "dead.chat.room", "offline.chat.42"):
            for user in ("chat", "main", "orders"):
                with self.subTest(kind, user=user):
                    self.assertTrue(self.refused(user, f"PUB rt.{kind} 0\r\n"))
        for subject in ("$KV.RT_SESSIONS.x", "$KV.RT_EDGES.x", "$JS.API.STREAM.DELETE.RT_EVENTS", "$JS.API.STREAM.INFO.RT_EVENTS",
                        "$JS.API.DIRECT.GET.RT_EVENTS", "$JS.API.CONSUMER.CREATE.RT_EVENTS", "$SYS.REQ.SERVER.PING"):
            with self.subTest(subject):
                self.assertTrue(self.refused("chat", f"PUB {subject} 0\r\n"))

    def test_a_team_hears_only_its_own_clients_and_answers(self):
        for subject, refused in (
            ("rt.up.chat.*", False),
            ("rt.authz.chat", False),
            ("_INBOX_chat.>", False),
            ("rt.up.main.*", True),
            ("rt.up.>", True),
            ("rt.out.>", True),
            ("rt.event.>", True),
            ("_INBOX.>", True),
            ("_INBOX_main.>", True),
            (">", True),
        ):
            with self.subTest(subject):
                self.assertIs(self.refused("chat", f"SUB {subject} 1\r\n"), refused)

    def test_a_publishing_service_may_only_publish_to_its_rooms(self):
        self.assertFalse(self.refused("orders", "PUB rt.pub.main.orders 0\r\n"))
        self.assertTrue(self.refused("orders", "PUB rt.pub.main.all 0\r\n"))
        self.assertTrue(self.refused("orders", "SUB rt.up.main.* 1\r\n"))

    def test_carillon_may_do_everything_in_its_account(self):
        for subject in ("rt.out.main.r.x", "$KV.RT_EDGES.x", "$JS.API.INFO"):
            self.assertFalse(self.refused("carillon", f"PUB {subject} 0\r\n"))
        self.assertFalse(self.refused("carillon", "SUB > 1\r\n"))


class Client:
    """As much of the protocol as the tests need."""

    def __init__(self, port, user, password):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.lines = self.socket.makefile("rb")
        self.lines.readline()
        options = f'{{"user":"{user}","pass":"{password}","verbose":false,"protocol":1}}'
        self.socket.sendall(f"CONNECT {options}\r\n".encode())
        assert not self.refuses(), "the server refuses the user"

    def refuses(self, *commands):
        """Sends commands, and tells whether an error comes before the answer to a ping."""
        body = "".join(command + ("\r\n" if command.startswith("PUB") else "") for command in commands)
        self.socket.sendall(body.encode() + b"PING\r\n")
        refused = False
        while (line := self.lines.readline()) and not line.startswith(b"PONG"):
            refused = refused or line.startswith(b"-ERR")
        return refused

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()


@contextlib.contextmanager
def server():
    binary = tool("nats-server")
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "server.conf")
        (pathlib.Path(folder) / "accounts.conf").write_text((FOLDER / "accounts.conf").read_text())
        config.write_text(f'listen: "127.0.0.1:-1"\njetstream {{ store_dir: "{folder}/data" }}\ninclude accounts.conf\n')
        log = pathlib.Path(folder, "log")
        child = subprocess.Popen([binary, "-c", str(config), "-l", str(log)], env={**os.environ, **PASSWORDS})
        try:
            yield port_in(log, child)
        finally:
            child.terminate()
            child.wait(10)


def port_in(log, child):
    end = time.monotonic() + 10
    while time.monotonic() < end and child.poll() is None:
        said = log.read_text() if log.exists() else ""
        found = re.search(r"Listening for client connections on 127\.0\.0\.1:(\d+)", said)
        if found and "Server is ready" in said:
            return int(found.group(1))
        time.sleep(0.02)
    raise AssertionError("nats-server did not start:\n" + (log.read_text() if log.exists() else ""))

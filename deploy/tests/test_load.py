"""The load scripts and the chart's test, against a cluster of this machine."""

import functools
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import unittest

from support import ROOT, TOOLS, carillon, run, tool

FOLDER = ROOT / "loadtest" / "k6"


def k6():
    own = TOOLS / "venv" / "bin" / "k6"
    return str(own) if own.exists() else tool("k6")


@functools.cache
def runner():
    """The program that `make load` runs, as a module."""
    loader = importlib.machinery.SourceFileLoader("runner", str(FOLDER / "run"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("runner", loader))
    loader.exec_module(module)
    return module


class Scripts(unittest.TestCase):
    def test_the_parts_without_a_cluster(self):
        output = run(k6(), "run", "--no-color", str(FOLDER / "tests" / "unit.js"))
        self.assertIn("checks_failed......................: 0.00%", output)

    def test_every_scenario_counts_loss_duplicates_and_order(self):
        for scenario in runner().SCENARIOS:
            inspected = json.loads(run(k6(), "inspect", str(FOLDER / f"{scenario}.js")))
            for metric in ("lost", "duplicated", "disordered", "connect_failed"):
                self.assertEqual(inspected["thresholds"]["carillon_" + metric], ["count==0"], scenario)
            self.assertEqual(inspected["thresholds"]["carillon_delivered"], ["count>0"], scenario)
            self.assertTrue(inspected["scenarios"], scenario)

    def test_an_unknown_scenario_is_refused(self):
        done = subprocess.run([FOLDER / "run", "everything"], capture_output=True, text=True, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no scenario everything", done.stderr)


class Cluster(unittest.TestCase):
    """With the real services."""

    def test_every_transport_gets_every_event_once_and_in_order(self):
        variables = {**os.environ, "CARILLON_BIN": carillon(), "CLIENTS": "6", "SECONDS": "2", "RATE": "5"}
        k6()
        output = run(FOLDER / "run", "unicast", "--no-color", env=variables)
        self.assertRegex(output, r"carillon_delivered\.+: 60 ")
        self.assertRegex(output, r"carillon_lost\.+: 0 ")
        self.assertNotIn("✗", output)

    def test_a_threshold_that_is_not_met_fails_the_run(self):
        variables = {**os.environ, "CARILLON_BIN": carillon(), "CLIENTS": "1", "SECONDS": "1", "RATE": "1", "SLOWEST_MS": "0"}
        k6()
        done = subprocess.run([FOLDER / "run", "unicast"], capture_output=True, text=True, env=variables, timeout=120, check=False)
        self.assertEqual(done.returncode, 99, done.stdout + done.stderr)

    def test_the_check_of_a_rollout_counts_what_stock_clients_get(self):
        script = ROOT / "deploy" / "tools" / "check-rollout.mjs"
        with runner().Cluster(carillon(), runner().free_ports(), False) as cluster:
            settings = cluster.settings()
            right = {**os.environ, "EDGE": settings["EDGES"].split(",")[0], "PUBLISHER": settings["PUBLISHER"], "CLIENTS": "3", "SECONDS": "2"}
            self.assertRegex(run(tool("node"), script, env=right), r"[1-9]\d* published, [1-9]\d* deliveries, 0 lost, 0 repeated, 0 disordered")
            # Nobody is in that room.
            done = subprocess.run([tool("node"), script], capture_output=True, text=True, env={**right, "ROOM": "user:nobody", "LAST": "1"}, timeout=90, check=False)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stdout, r"0 deliveries, [1-9]\d* lost")

    def test_the_test_of_the_chart_publishes_and_receives(self):
        script = ROOT / "helm" / "carillon" / "files" / "test" / "publish_and_receive.py"
        with runner().Cluster(carillon(), runner().free_ports(), False) as cluster:
            settings = cluster.settings()
            edge = settings["EDGES"].split(",")[0]
            right = {"EDGE_URL": edge, "PUBLISHER_URL": settings["PUBLISHER"], "NAMESPACE": "/", "JWT_SECRET": "dev-secret", "API_KEY": "dev-key"}
            self.assertRegex(run(sys.executable, script, env=right), r"event \S+ came back after \d+ ms")
            for name, said in (("JWT_SECRET", "refuses the client"), ("API_KEY", "401")):
                wrong = {**right, name: "wrong"}
                done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=wrong, timeout=90, check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(said, done.stderr)

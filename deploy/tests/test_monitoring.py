"""Alerts and dashboards: on metrics that exist, and accepted by promtool."""

import json
import re
import unittest

import yaml

from support import ROOT, run, text, tool

ALERTS = yaml.safe_load(text("deploy", "alerts", "carillon.yml"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARDS = sorted((ROOT / "deploy" / "dashboards").glob("*.json"))
# Of Prometheus itself, and of the exporter of NATS.
OTHERS = {
    "up",
    "jetstream_server_total_consumers",
    "jetstream_consumer_num_pending",
    "jetstream_stream_total_messages",
}
# Words of PromQL that are not followed by a bracket, and labels.
WORDS = {"by", "and", "or", "unless", "on", "ignoring", "without", "offset", "bool"}


def known():
    names = set(OTHERS)
    for service in ("edge", "router", "publisher"):
        source = text("crates", service, "src", "metrics.rs")
        constants = dict(re.findall(r'const (\w+): &str = "(\w+)";', source))
        names |= set(constants.values())
        for constant in re.findall(r"describe_histogram!\(\s*(\w+)", source):
            names |= {constants[constant] + suffix for suffix in ("_bucket", "_sum", "_count")}
    return names


def used(expression):
    expression = re.sub(r'"[^"]*"', "", expression)
    expression = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
    expression = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", expression)
    expression = re.sub(r"\boffset\s+\w+", "", expression)
    return {word for word in re.findall(r"\b([a-z_]\w*)\b(?!\s*\()", expression) if word not in WORDS}


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


class Metrics(unittest.TestCase):
    def test_every_alert_is_on_metrics_that_exist(self):
        for rule in RULES:
            names = used(rule["expr"])
            self.assertTrue(names, rule["alert"])
            self.assertLessEqual(names, known(), rule["alert"])

    def test_every_panel_is_on_metrics_that_exist(self):
        for path in DASHBOARDS:
            for panel in panels(json.loads(path.read_text())):
                for target in panel["targets"]:
                    names = used(target["expr"])
                    self.assertTrue(names, target["expr"])
                    self.assertLessEqual(names, known(), f"{path.name}: {panel['title']}")

    def test_every_metric_is_shown(self):
        shown = set()
        for path in DASHBOARDS:
            for panel in panels(json.loads(path.read_text())):
                for target in panel["targets"]:
                    shown |= {re.sub(r"_(bucket|count|sum)$", "", name) for name in used(target["expr"])}
        plain = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known()}
        self.assertEqual(plain - shown, set())


class Alerts(unittest.TestCase):
    def test_promtool_accepts_the_rules(self):
        run(tool("promtool"), "check", "rules", str(ROOT / "deploy/alerts/carillon.yml"))

    def test_alerts_fire_when_they_should(self):
        run(tool("promtool"), "test", "rules", str(ROOT / "deploy/tests/alerts.yml"))

    def test_promtool_accepts_the_settings_of_prometheus(self):
        run(tool("promtool"), "check", "config", "--syntax-only", str(ROOT / "deploy/compose/prometheus.yml"))

    def test_each_says_how_bad_it_is_and_is_explained(self):
        manual = text("docs", "operations.md")
        for rule in RULES:
            self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
            self.assertTrue(rule["annotations"]["summary"])
            self.assertIn(f"`{rule['alert']}`", manual)
        names = [rule["alert"] for rule in RULES]
        self.assertEqual(len(names), len(set(names)))


class Dashboards(unittest.TestCase):
    def test_panels_do_not_overlap_and_have_their_own_ids(self):
        for path in DASHBOARDS:
            dashboard = json.loads(path.read_text())
            ids = [panel["id"] for panel in dashboard["panels"]]
            self.assertEqual(len(ids), len(set(ids)), path.name)
            taken = set()
            for panel in dashboard["panels"]:
                place = panel["gridPos"]
                self.assertLessEqual(place["x"] + place["w"], 24)
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
                self.assertFalse(cells & taken, f"{path.name}: {panel['title']}")
                taken |= cells

    def test_the_chart_has_the_same_files(self):
        for path in [*DASHBOARDS, ROOT / "deploy/alerts/carillon.yml"]:
            copy = ROOT / "helm/carillon/files" / path.parent.name / path.name
            self.assertEqual(copy.read_text(), path.read_text(), f"copy {path.name} to {copy.parent}")

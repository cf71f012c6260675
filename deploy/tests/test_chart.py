"""The chart, rendered by Helm's own engine."""

import functools
import json
import pathlib
import tempfile
import unittest
import unittest.mock

import yaml

from support import CHART, PROFILES, carillon, chart, chart_alone, merged, render, run, text, values, values_files

VERSIONS = ("1.31", "1.37")
SERVICES = ("edge", "router", "publisher")
PORTS = {"edge": 7000, "router": 7200, "publisher": 7100}
# Objects of others, which the schemas of Kubernetes do not know.
FOREIGN = {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}
EVERYTHING = {
    "secret": {"create": True, "data": {"JWT_SECRET": "very-secret", "API_KEY": "key-of-somebody"}},
    "ingress": {"enabled": True, "className": "nginx", "tls": [{"hosts": ["a.example"], "secretName": "a"}]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["a.example"]},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "otlpEndpoint": "http://collector:4317",
    "edge": {"tls": {"existingSecret": "edge-tls"}, "trustedProxies": ["10.0.0.0/8", "::1"]},
    "natsClient": {
        "credentials": {"existingSecret": "nats-creds"},
        "nkey": {"existingSecret": "nats-nkey"},
        "tls": {"required": True, "caSecret": "nats-ca", "clientSecret": "nats-client"},
    },
}


def pod(item):
    return item["spec"]["template"]["spec"]


def container(item):
    return pod(item)["containers"][0]


def environment(item):
    return {entry["name"]: entry.get("value") for entry in container(item)["env"]}


def all_values():
    return [(name, values(name)) for name in values_files()] + [("everything", EVERYTHING)]


class Rendering(unittest.TestCase):
    def test_every_object_is_valid_for_two_versions_of_kubernetes(self):
        try:
            import kubernetes_validate
        except ImportError:
            self.skipTest("kubernetes-validate is not installed")
        # Large files that are read again for every object otherwise.
        utils = kubernetes_validate.utils
        with unittest.mock.patch.object(utils, "schema_contents", functools.cache(utils.schema_contents)):
            self.validate(kubernetes_validate)

    def validate(self, kubernetes_validate):
        for name, overrides in all_values():
            objects = render(overrides)
            self.assertGreater(len(objects), 10, name)
            for item in objects:
                if item["kind"] in FOREIGN:
                    continue
                for version in VERSIONS:
                    with self.subTest(values=name, kind=item["kind"], version=version):
                        kubernetes_validate.validate(item, version, strict=True)

    def test_names_are_unique_and_in_the_namespace_of_the_release(self):
        for name, overrides in all_values():
            seen = set()
            for item in render(overrides):
                key = (item["kind"], item["metadata"]["name"])
                self.assertNotIn(key, seen, name)
                seen.add(key)
                self.assertEqual(item["metadata"]["namespace"], "prod", key)
                self.assertLessEqual(len(item["metadata"]["name"]), 63)

    def test_long_names_stay_within_63_characters(self):
        for item in render(EVERYTHING, name="a" * 53):
            self.assertLessEqual(len(item["metadata"]["name"]), 63)

    def test_objects_that_name_each_other_exist(self):
        objects = render(EVERYTHING)
        names = {(item["kind"], item["metadata"]["name"]) for item in objects}
        for deployment in objects.of("Deployment"):
            self.assertIn(("ServiceAccount", pod(deployment)["serviceAccountName"]), names)
            for volume in pod(deployment)["volumes"]:
                if "configMap" in volume:
                    self.assertIn(("ConfigMap", volume["configMap"]["name"]), names)
            self.assertIn(("Secret", container(deployment)["envFrom"][0]["secretRef"]["name"]), names)
            mounted = {mount["name"] for mount in container(deployment)["volumeMounts"]}
            self.assertEqual(mounted, {volume["name"] for volume in pod(deployment)["volumes"]})
        for service in objects.of("Service"):
            labels = service["spec"]["selector"].items()
            chosen = [d for d in objects.of("Deployment") if labels <= d["spec"]["template"]["metadata"]["labels"].items()]
            self.assertEqual(len(chosen), 1, service["metadata"]["name"])
            ports = {port["name"] for port in container(chosen[0])["ports"]}
            self.assertLessEqual({port["targetPort"] for port in service["spec"]["ports"]}, ports)
        self.assertIn(("Deployment", objects.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]), names)

    def test_helm_finds_nothing_wrong_but_the_dependency_that_is_not_fetched(self):
        chart()
        from helm_python import lint
        for name, overrides in all_values():
            messages = lint(chart_alone(), overrides, strict=True, kube_version="v1.31.0")["messages"]
            wrong = [message["error"] for message in messages if message["severity"] > 1]
            self.assertEqual([text for text in wrong if "missing these dependencies: nats" not in text], [], name)

    def test_nats_is_a_dependency_with_a_condition(self):
        dependency = yaml.safe_load((CHART / "Chart.yaml").read_text())["dependencies"][0]
        self.assertEqual((dependency["name"], dependency["condition"]), ("nats", "nats.enabled"))
        defaults = yaml.safe_load((CHART / "values.yaml").read_text())
        self.assertEqual(defaults["nats"]["config"]["cluster"]["replicas"], 3)
        self.assertEqual(environment(render().one("Deployment", "edge"))["NATS_URL"], "nats://rel-nats:4222")

    def test_nats_is_reached_by_the_name_that_its_chart_gives_it(self):
        for release, overrides, service in (
            ("carillon", {}, "carillon-nats"),
            # As Helm's own scaffold does it, a release that has the chart's name in its own gives it to the Service.
            ("nats", {}, "nats"),
            ("carillon-nats", {}, "carillon-nats"),
            ("nats-eu", {"nameOverride": "mq"}, "nats-eu-mq"),
            ("carillon", {"service": {"name": "bus"}}, "bus"),
            ("carillon", {"fullnameOverride": "mq"}, "mq"),
        ):
            objects = render({"nats": overrides}, release)
            for component in SERVICES:
                with self.subTest(release=release, overrides=overrides, service=component):
                    self.assertEqual(environment(objects.one("Deployment", component))["NATS_URL"], f"nats://{service}:4222")
                    rule = objects.one("NetworkPolicy", component)["spec"]["egress"][1]
                    chosen = rule["to"][0]["podSelector"]["matchLabels"]
                    self.assertEqual(chosen["app.kubernetes.io/name"], overrides.get("nameOverride", "nats"))


class Clients(unittest.TestCase):
    def test_nothing_ties_a_client_to_an_edge(self):
        for name, overrides in all_values():
            objects = render(overrides)
            for service in objects.of("Service"):
                self.assertEqual(service["spec"].get("sessionAffinity", "None"), "None", name)
            for kind in ("Ingress", "HTTPRoute"):
                for item in objects.of(kind):
                    shown = json.dumps(item).lower()
                    for word in ("affinity", "session-cookie", "sticky", "sessionpersistence"):
                        self.assertNotIn(word, shown, name)

    def test_timeouts_of_the_ingress_are_above_the_ping_interval(self):
        annotations = render(EVERYTHING).one("Ingress")["metadata"]["annotations"]
        for key in ("proxy-read-timeout", "proxy-send-timeout"):
            self.assertGreater(int(annotations["nginx.ingress.kubernetes.io/" + key]), 45)

    def test_routes_lead_to_the_edges(self):
        objects = render(EVERYTHING)
        backend = objects.one("Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        self.assertEqual(backend, {"name": "rel-carillon-edge", "port": {"name": "http"}})
        rule = objects.one("HTTPRoute")["spec"]["rules"][0]
        self.assertEqual(rule["backendRefs"], [{"name": "rel-carillon-edge", "port": 80}])
        self.assertEqual(rule["timeouts"], {"request": "0s", "backendRequest": "0s"})

    def test_health_and_metrics_are_not_where_clients_are(self):
        for service in render().of("Service"):
            ports = {port["targetPort"] for port in service["spec"]["ports"]}
            if service["metadata"]["name"].endswith("-admin"):
                self.assertEqual((ports, service["spec"]["clusterIP"]), ({"admin"}, "None"))
            else:
                self.assertEqual(ports, {"http"})


class Pods(unittest.TestCase):
    def test_probes_ask_the_admin_port(self):
        for component in SERVICES:
            main = container(render().one("Deployment", component))
            admin = {port["name"]: port["containerPort"] for port in main["ports"]}["admin"]
            self.assertEqual(admin, PORTS[component] + 1000)
            for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")):
                self.assertEqual(main[probe]["httpGet"], {"path": path, "port": "admin"})

    def test_grace_is_longer_than_the_drain(self):
        for drain, before in ((30, 2), (5, 0), (600, 10)):
            edge = render({"edge": {"drainSeconds": drain, "drainDelaySeconds": 3, "preStopSeconds": before}}).one("Deployment", "edge")
            self.assertGreater(pod(edge)["terminationGracePeriodSeconds"], drain + before)
            self.assertEqual(environment(edge)["CARILLON_EDGE__DRAIN"], f"{drain}s")
            self.assertEqual("lifecycle" in container(edge), before > 0)
        for component in ("router", "publisher"):
            # Ten seconds of drain and ten of margin are built in.
            self.assertGreater(pod(render().one("Deployment", component))["terminationGracePeriodSeconds"], 22)

    def test_the_other_edges_can_take_the_clients_of_one_that_drains(self):
        for name in values_files():
            edge = merged(yaml.safe_load(text("helm", "carillon", "values.yaml")), values(name))["edge"]
            if not edge["autoscaling"]["enabled"]:
                continue
            # Three quarters of what is left of the drain, as the edge spreads them.
            spread = (edge["drainSeconds"] - edge["drainDelaySeconds"] - 2.5) * 0.75
            leaving = edge["autoscaling"]["connectionsPerPod"] / spread
            self.assertLess(leaving, edge["acceptRate"] * (edge["autoscaling"]["minReplicas"] - 1), name)

    def test_readiness_is_lost_before_the_listeners_close(self):
        edge = render().one("Deployment", "edge")
        probe = container(edge)["readinessProbe"]
        delay = int(environment(edge)["CARILLON_EDGE__DRAIN_DELAY"].rstrip("s"))
        self.assertGreater(delay, probe["periodSeconds"] * probe["failureThreshold"])

    def test_pods_have_no_privileges_and_no_token(self):
        for item in render(EVERYTHING):
            if item["kind"] not in ("Deployment", "Pod"):
                continue
            spec = pod(item) if item["kind"] == "Deployment" else item["spec"]
            self.assertIs(spec["automountServiceAccountToken"], False)
            self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
            self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            for main in spec["containers"]:
                context = main["securityContext"]
                self.assertIs(context["readOnlyRootFilesystem"], True)
                self.assertIs(context["allowPrivilegeEscalation"], False)
                self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                self.assertIn("memory", main["resources"]["limits"])
        self.assertIs(render().one("ServiceAccount")["automountServiceAccountToken"], False)

    def test_a_rolling_restart_takes_no_edge_away_first(self):
        strategy = render().one("Deployment", "edge")["spec"]["strategy"]["rollingUpdate"]
        self.assertEqual(strategy, {"maxSurge": 1, "maxUnavailable": 0})

    def test_pods_are_spread_over_zones_and_hosts(self):
        for component in SERVICES:
            deployment = render().one("Deployment", component)
            constraints = pod(deployment)["topologySpreadConstraints"]
            keys = [constraint["topologyKey"] for constraint in constraints]
            self.assertEqual(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"])
            labels = deployment["spec"]["template"]["metadata"]["labels"].items()
            for constraint in constraints:
                self.assertLessEqual(constraint["labelSelector"]["matchLabels"].items(), labels)

    def test_every_service_has_a_disruption_budget(self):
        for component in SERVICES:
            budget = render().one("PodDisruptionBudget", component)
            labels = render().one("Deployment", component)["spec"]["template"]["metadata"]["labels"].items()
            self.assertLessEqual(budget["spec"]["selector"]["matchLabels"].items(), labels)

    def test_a_new_config_restarts_edges_unless_they_shall_keep_running(self):
        def marks(overrides):
            return render(overrides).one("Deployment", "edge")["spec"]["template"]["metadata"]["annotations"]
        other = {"config": "[edge]\n"}
        self.assertNotEqual(marks({}), marks(other))
        keep = {"edge": {"keepOnConfigChange": True}}
        self.assertEqual(marks(keep), marks(merged(other, keep)))

    def test_the_image_is_named_by_tag_or_digest(self):
        digest = "sha256:" + "0" * 64
        for image, expected in (({}, "carillon:0.1.0"), ({"tag": "x"}, "carillon:x"), ({"tag": "x", "digest": digest}, "carillon@" + digest)):
            self.assertEqual(container(render({"image": image}).one("Deployment", "edge"))["image"], expected)


class Scaling(unittest.TestCase):
    def test_edges_scale_on_connections_and_cpu(self):
        scaler = render({"edge": {"autoscaling": {"connectionsPerPod": 1234, "cpu": 50}}}).one("HorizontalPodAutoscaler")
        connections, cpu = scaler["spec"]["metrics"]
        self.assertEqual(connections["pods"]["metric"]["name"], "ws_connections_active")
        self.assertEqual(connections["pods"]["target"], {"type": "AverageValue", "averageValue": "1234"})
        self.assertEqual(cpu["resource"], {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}})
        self.assertGreaterEqual(scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 300)

    def test_the_autoscaler_and_the_deployment_do_not_both_count_replicas(self):
        self.assertNotIn("replicas", render().one("Deployment", "edge")["spec"])
        fixed = render({"edge": {"autoscaling": {"enabled": False}, "replicas": 7}})
        self.assertEqual(fixed.one("Deployment", "edge")["spec"]["replicas"], 7)
        self.assertEqual(fixed.of("HorizontalPodAutoscaler"), [])


class Network(unittest.TestCase):
    def test_every_service_has_a_policy_for_both_directions(self):
        for component in SERVICES:
            policy = render().one("NetworkPolicy", component)["spec"]
            self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
            opened = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
            self.assertEqual(opened, [PORTS[component], PORTS[component] + 1000])
            left = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
            self.assertLessEqual({53, 4222}, left)

    def test_the_interfaces_of_teams_are_closed_to_other_namespaces(self):
        for component in ("router", "publisher"):
            rule = render().one("NetworkPolicy", component)["spec"]["ingress"][0]
            self.assertEqual(rule["from"], [{"podSelector": {}}])

    def test_only_the_servers_of_the_release_are_reached_as_nats(self):
        rule = render().one("NetworkPolicy", "edge")["spec"]["egress"][1]
        self.assertEqual(rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"], "rel")
        outside = {"nats": {"enabled": False}, "natsClient": {"url": "nats://n:4222"}}
        self.assertNotIn("to", render(outside).one("NetworkPolicy", "edge")["spec"]["egress"][1])

        also_deployed = {"natsClient": {"url": "nats://n:4222"}}
        self.assertNotIn("to", render(also_deployed).one("NetworkPolicy", "edge")["spec"]["egress"][1])

    def test_the_port_of_the_dependency_is_followed(self):
        objects = render({"nats": {"config": {"nats": {"port": 4333}}}})
        self.assertEqual(environment(objects.one("Deployment", "edge"))["NATS_URL"], "nats://rel-nats:4333")
        self.assertEqual(objects.one("NetworkPolicy", "edge")["spec"]["egress"][1]["ports"][0]["port"], 4333)

    def test_nats_is_closed_to_other_namespaces_unless_they_are_named(self):
        policy = render().one("NetworkPolicy", "nats")["spec"]
        self.assertEqual(policy["podSelector"]["matchLabels"], {"app.kubernetes.io/name": "nats", "app.kubernetes.io/instance": "rel"})
        self.assertIn({"podSelector": {}}, policy["ingress"][0]["from"])
        self.assertNotIn("ports", policy["ingress"][0], "clients, routes and leaf nodes alike")
        peer = {"namespaceSelector": {"matchLabels": {"team": "orders"}}}
        narrowed = render({"networkPolicy": {"natsFrom": [peer]}}).one("NetworkPolicy", "nats")["spec"]
        release = {"podSelector": {"matchLabels": {"app.kubernetes.io/instance": "rel"}}}
        self.assertEqual(narrowed["ingress"][0]["from"], [release, peer])
        outside = {"nats": {"enabled": False}, "natsClient": {"url": "nats://n:4222"}}
        self.assertEqual(render(outside).of("NetworkPolicy", "nats"), [])

    def test_who_may_connect_can_be_narrowed(self):
        peer = {"namespaceSelector": {"matchLabels": {"name": "ingress"}}}
        policy = render({"networkPolicy": {"edgeFrom": [peer], "metricsFrom": [peer]}}).one("NetworkPolicy", "edge")["spec"]
        self.assertEqual([rule["from"] for rule in policy["ingress"]], [[peer], [peer]])


class Secrets(unittest.TestCase):
    def test_no_secret_is_in_a_config_map_or_a_pod(self):
        objects = render(EVERYTHING)
        for item in objects:
            shown = json.dumps(item)
            for secret in EVERYTHING["secret"]["data"].values():
                self.assertEqual(secret in shown, item["kind"] == "Secret", item["kind"])

    def test_a_secret_in_the_config_is_refused(self):
        for config in (
            '[auth]\nsecret = "abc"',
            "[[auth.keys]]\nsecret = 'abc'",
            '[auth]\nkeys = [{ secret = "abc" }]',
            '[[publisher.mqtt]]\n  password = "abc"',
            '[[auth.api_keys]]\nkey = "abc"',
            'api_keys = [{ name = "x", key = "abc" }]',
            '[nats]\nurl = "nats://user:pass@nats:4222"',
        ):
            with self.subTest(config), self.assertRaisesRegex(Exception, "plain text|password in a URL"):
                render({"config": config})

    def test_references_and_paths_are_no_secrets(self):
        config = '[auth]\nsecret = "${JWT_SECRET}"\n[[auth.api_keys]]\nkey = "${API_KEY}"\nkey_sha256 = "00"\n[edge.tls]\nkey = "/etc/tls.key"\n'
        data = render({"config": config}).one("ConfigMap", "carillon")["data"]
        self.assertEqual(data["carillon.toml"], config)

    def test_an_existing_secret_is_used_and_none_made(self):
        objects = render({"secret": {"existing": "mine", "create": True}})
        self.assertEqual(objects.of("Secret"), [])
        for component in SERVICES:
            sources = container(objects.one("Deployment", component))["envFrom"]
            self.assertEqual(sources, [{"secretRef": {"name": "mine"}}])

    def test_nats_can_be_elsewhere_with_credentials_and_tls(self):
        objects = render(merged(EVERYTHING, {"nats": {"enabled": False}, "natsClient": {"url": "tls://a:4222,tls://b:4222"}}))
        for component in SERVICES:
            deployment = objects.one("Deployment", component)
            seen = environment(deployment)
            self.assertEqual(seen["NATS_URL"], "tls://a:4222,tls://b:4222")
            mounts = {mount["mountPath"] for mount in container(deployment)["volumeMounts"]}
            for name in ("CREDENTIALS", "NKEY", "TLS__CA", "TLS__CERTIFICATE", "TLS__KEY"):
                folder = seen["CARILLON_NATS__" + name].rsplit("/", 1)[0]
                self.assertIn(folder, mounts, name)

    def test_a_url_with_a_password_comes_from_the_secret(self):
        objects = render({"secret": {"existing": "mine"}, "nats": {"enabled": False}, "natsClient": {"urlKey": "NATS"}})
        entries = {entry["name"]: entry for entry in container(objects.one("Deployment", "edge"))["env"]}
        self.assertEqual(entries["NATS_URL"]["valueFrom"]["secretKeyRef"], {"name": "mine", "key": "NATS"})


class Values(unittest.TestCase):
    def test_wrong_values_are_refused_and_named(self):
        for overrides, named in (
            ({"edgee": {}}, "edgee"),
            ({"edge": {"replica": 3}}, "replica"),
            ({"edge": {"replicas": "three"}}, "replicas"),
            ({"edge": {"replicas": 0}}, "replicas"),
            ({"edge": {"drainSeconds": "30s"}}, "drainSeconds"),
            ({"edge": {"autoscaling": {"cpu": 170}}}, "cpu"),
            ({"edge": {"autoscaling": {"connectionsPerPod": 0, "cpu": 0}}}, "cpu"),
            ({"edge": {"service": {"sessionAffinity": "ClientIP"}}}, "sessionAffinity"),
            ({"edge": {"service": {"type": "Cluster"}}}, "type"),
            ({"edge": {"trustedProxies": ["everyone"]}}, "trustedProxies"),
            ({"ingress": {"annotations": {"nginx.ingress.kubernetes.io/affinity": "cookie"}}}, "affinity"),
            ({"ingress": {"enabled": True, "hosts": []}}, "hosts"),
            ({"httpRoute": {"enabled": True}}, "parentRefs"),
            ({"natsClient": {"replicas": 2}}, "replicas"),
            ({"natsClient": {"url": "http://nats"}}, "url"),
            ({"natsClient": {"url": "nats://user:pass@nats:4222"}}, "url"),
            ({"nats": {"enabled": False}}, "natsClient"),
            ({"natsClient": {"urlKey": "NATS_URL"}}, "secret"),
            ({"nats": {"enabled": "no"}}, "enabled"),
            ({"image": {"digest": "latest"}}, "digest"),
            ({"secret": {"data": {"A B": "x"}}}, "A B"),
            ({"log": {"format": "xml"}}, "format"),
            ({"otlpEndpoint": "collector:4317"}, "otlpEndpoint"),
            ({"config": {"edge": {}}}, "config"),
            ({"publisher": {"gracePeriodSeconds": 5}}, "gracePeriodSeconds"),
        ):
            with self.subTest(overrides), self.assertRaises(Exception) as refused:
                chart().validate_schema(overrides)
            self.assertIn(named, str(refused.exception))
            with self.subTest(overrides), self.assertRaises(Exception):
                render(overrides)

    def test_what_nats_would_refuse_only_later_is_refused(self):
        memory = '[history]\nstorage = "memory"'
        for overrides, said in (
            ({"natsClient": {"replicas": 5}}, "natsClient.replicas is 5, and nats.config.cluster has 3"),
            ({"nats": {"config": {"cluster": {"enabled": False}}}}, "natsClient.replicas is 3, and nats.config.cluster has 1"),
            ({"nats": {"namespaceOverride": "messaging"}}, "namespaceOverride is not supported"),
            ({"config": memory}, "needs nats.config.jetstream.memoryStore.enabled"),
        ):
            with self.subTest(overrides), self.assertRaisesRegex(Exception, said):
                render(overrides)
        render({"config": memory, "nats": {"config": {"jetstream": {"memoryStore": {"enabled": True}}}}})
        render({"natsClient": {"replicas": 5, "url": "nats://elsewhere:4222"}})

    def test_every_default_is_known_to_the_schema(self):
        defaults = yaml.safe_load((CHART / "values.yaml").read_text())
        schema = json.loads((CHART / "values.schema.json").read_text())
        self.assertEqual(set(defaults), set(schema["properties"]) - {"global"})
        chart().validate_schema({})

    def test_every_profile_has_values_with_its_settings(self):
        self.assertEqual(len(PROFILES), 5)
        for profile in PROFILES:
            config = values(f"values-{profile}.yaml")["config"]
            self.assertEqual(config, text("deploy", "profiles", profile + ".toml"), profile)

    def test_the_settings_of_every_values_file_are_accepted(self):
        binary = carillon()
        with tempfile.TemporaryDirectory() as folder:
            for name in values_files():
                objects = render(values(name))
                file = pathlib.Path(folder, name + ".toml")
                file.write_text(objects.one("ConfigMap", "carillon")["data"]["carillon.toml"], encoding="utf-8")
                for component in SERVICES:
                    variables = {key: value for key, value in environment(objects.one("Deployment", component)).items() if value}
                    # What the Secret holds.
                    variables |= {"JWT_SECRET": "x", "API_KEY": "x", "API_KEY_SHA256": "0" * 64}
                    with self.subTest(values=name, service=component):
                        self.assertIn("ok", run(binary, "check", "--config", str(file), env=variables))


class Tests(unittest.TestCase):
    def test_the_test_pod_publishes_and_receives(self):
        test = render(values("values-laptop.yaml")).one("Pod")
        self.assertEqual(test["metadata"]["annotations"]["helm.sh/hook"], "test")
        seen = {entry["name"]: entry for entry in test["spec"]["containers"][0]["env"]}
        self.assertEqual(seen["EDGE_URL"]["value"], "http://rel-carillon-edge:80")
        self.assertEqual(seen["JWT_SECRET"]["valueFrom"]["secretKeyRef"], {"name": "rel-carillon", "key": "JWT_SECRET"})
        script = render(values("values-laptop.yaml")).one("ConfigMap", "test")["data"]["publish_and_receive.py"]
        compile(script, "publish_and_receive.py", "exec")

"""Publishes an event over HTTP and receives it as a Socket.IO client, by long-polling, with nothing but Python.

EDGE_URL, PUBLISHER_URL, NAMESPACE, API_KEY, and TOKEN or JWT_SECRET (HS256) say where and as whom.
"""

import base64
import hashlib
import hmac
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid

USER = "helm-test"
DEADLINE = time.monotonic() + 60
SEPARATOR = "\x1e"


def required(name):
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: name a Secret in `secret`, and its keys in `tests`")
    return value


def http(method, url, body=None, headers=None):
    request = urllib.request.Request(url, body and body.encode(), headers or {}, method=method)
    # The certificate is for the name that clients use, not for the Service's.
    context = ssl._create_unverified_context() if url.startswith("https") else None
    with urllib.request.urlopen(request, timeout=40, context=context) as response:
        return response.read().decode()


def retried(method, url, body=None, headers=None):
    """An edge that has just begun, or a round-robin to one that ends, may answer 503."""
    while True:
        try:
            return http(method, url, body, headers)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > DEADLINE:
                sys.exit(f"{method} {url.split('?')[0]}: {error.code} {error.read().decode(errors='replace')}")
        except urllib.error.URLError as error:
            if time.monotonic() > DEADLINE:
                sys.exit(f"{method} {url.split('?')[0]}: {error.reason}")
        time.sleep(1)


def token():
    if os.environ.get("TOKEN"):
        return os.environ["TOKEN"]

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = {"sub": USER, "exp": int(time.time()) + 300}
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    signature = hmac.new(required("JWT_SECRET").encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + part(signature)).decode()


def user_of(jwt):
    claims = jwt.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return str(next(claims[name] for name in ("sub", "userId", "id") if name in claims))


class Client:
    """A Socket.IO client that only polls."""

    def __init__(self, edge, namespace, jwt):
        self.prefix = "" if namespace == "/" else namespace + ","
        self.url, self.requests = f"{edge}/socket.io/?EIO=4&transport=polling", 0
        opened = retried("GET", self.address())
        self.url += "&sid=" + json.loads(opened[1:])["sid"]
        self.post("40" + self.prefix + json.dumps({"token": jwt}))
        answer = self.until(lambda packet: packet.startswith(("40", "44")))
        if answer.startswith("44"):
            sys.exit(f"the edge refuses the client: {answer[2:]}")

    def address(self):
        """A request with the same `t` would count as a repetition."""
        self.requests += 1
        return f"{self.url}&t={self.requests}"

    def post(self, packet):
        http("POST", self.address(), packet, {"Content-Type": "text/plain;charset=UTF-8"})

    def until(self, wanted):
        while time.monotonic() < DEADLINE:
            for packet in http("GET", self.address()).split(SEPARATOR):
                if packet == "2":
                    self.post("3")
                elif wanted(packet):
                    return packet
        sys.exit("nothing came within a minute")

    def event(self, name):
        start = "42" + self.prefix
        packet = self.until(lambda packet: packet.startswith(start + json.dumps([name])[:-1]))
        return json.loads(packet[len(start):])


def main():
    edge, publisher = required("EDGE_URL"), required("PUBLISHER_URL")
    namespace, key, jwt = os.environ.get("NAMESPACE", "/"), required("API_KEY"), token()
    client = Client(edge, namespace, jwt)
    mark = uuid.uuid4().hex
    body = {"namespace": namespace, "rooms": ["user:" + user_of(jwt)], "event": "carillon:test", "data": {"mark": mark}}
    headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
    begun = time.monotonic()
    accepted = json.loads(retried("POST", publisher + "/v1/events", json.dumps(body), headers))
    _, data, *_ = client.event("carillon:test")
    # Some namespaces wrap what is published.
    if mark not in json.dumps(data):
        sys.exit(f"another event came: {data}")
    print(f"event {accepted['id']} came back after {(time.monotonic() - begun) * 1000:.0f} ms")


if __name__ == "__main__":
    main()

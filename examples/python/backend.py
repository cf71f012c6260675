"""A backend in Python: it answers what clients emit, publishes, and reads presence.

    pip install --require-hashes -r requirements.txt && NATS_URL=nats://127.0.0.1:4222 python backend.py
"""

import asyncio
import json
import os
import signal
import sys

import nats


def token(name: str) -> str:
    """Writes a room, a user or an event as one token of a subject."""
    special = b".*>%"
    return "".join(
        f"%{byte:02X}" if byte <= 0x20 or byte >= 0x7F or byte in special else chr(byte) for byte in name.encode()
    )


class Backend:
    def __init__(self, client):
        self.client = client
        self.streams = client.jetstream()

    async def publish(self, room: str, event: str, data, event_id: str) -> None:
        """Publishes a durable event; it is safe to do again with the same id."""
        body = json.dumps({"event": event, "data": data, "id": event_id})
        await self.streams.publish(f"rt.pub.main.{token(room)}", body.encode())

    async def presence(self, room: str) -> dict:
        """Returns who is in a room."""
        reply = await self.client.request(f"rt.presence.main.{token(room)}", b"", timeout=2)
        return json.loads(reply.data)

    async def answer(self, event: str, handle) -> None:
        """Answers an event; of several processes in the group one gets it, and the reply is the acknowledgement."""

        async def respond(message):
            try:
                body = await handle(json.loads(message.data))
            except Exception as error:  # One bad event must not end the others.
                print(event, repr(error), file=sys.stderr)
                body = {"error": {"code": "failed", "message": "try again"}}
            if message.reply:
                await message.respond(json.dumps(body).encode())

        await self.client.subscribe(f"rt.up.main.{token(event)}", queue="notifications", cb=respond)

    async def mark_read(self, up: dict) -> dict:
        user, notification = up["user"]["id"], up["data"]["notificationId"]
        # Every device of the user is told, also one that is away for a moment.
        await self.publish(f"user:{user}", "notification:read", up["data"], f"read-{user}-{notification}")
        return {"success": True, "notificationId": notification}

    async def who(self, up: dict) -> dict:
        presence = await self.presence(up["data"]["room"])
        return {"count": presence["count"], "users": [member["userId"] for member in presence["members"]]}


async def main() -> None:
    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    backend = Backend(client)
    await backend.answer("notification:mark_read", backend.mark_read)
    await backend.answer("who", backend.who)
    await client.flush()
    print("ready", flush=True)
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()
    await client.drain()


asyncio.run(main())

"""The course client's flow as its lab text shows it: struct and json, a reply read with two plain recvs."""
import json, socket, struct, sys

ENTRY, SEND, MAILBOX, OPEN, DEL, QUIT, ERROR = 0, 1, 2, 3, 4, 5, -2


class Client:
    def __init__(self):
        self.sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)

    def send(self, kind, body):
        data = json.dumps(body).encode()
        self.sock.send(struct.pack("!ii", kind, len(data)) + data)

    def ask(self, kind, body):
        self.send(kind, body)
        kind, length = struct.unpack("!ii", self.sock.recv(8))
        data = self.sock.recv(length)
        assert len(data) == length, "half a reply"
        return kind, json.loads(data.decode())


def expect(got, *want):
    assert got == want, f"got {got}, want {want}"


alice, bob, other = Client(), Client(), Client()
expect(alice.ask(ENTRY, {"name": "alice@example.test"}), 0, "OK")
expect(bob.ask(ENTRY, {"name": "bob@example.test"}), 0, "OK")
expect(other.ask(ENTRY, {"name": "bob@example.test"}), ERROR, "Such user is already logged in")
expect(bob.ask(MAILBOX, None), MAILBOX, [])
expect(alice.ask(SEND, {"to": "nobody@example.test", "header": "h", "text": "t"}), ERROR, "Invalid destination address")
expect(alice.ask(SEND, {"to": "bob@example.test", "header": "hello", "text": "world"}), 0, "OK")
expect(alice.ask(SEND, {"to": "bob@example.test", "header": "Привет", "text": "мир, 🕊"}), 0, "OK")
kind, mails = bob.ask(MAILBOX, None)
assert kind == MAILBOX and [list(m) for m in mails] == [["id", "source", "destination", "header", "text"]] * 2, mails
for m in mails:
    for key, value in m.items():
        print(key, ":", value)
expect(bob.ask(OPEN, {"index": "2"}), OPEN, {"id": 2, "source": "alice@example.test", "destination": "bob@example.test",
                                             "header": "Привет", "text": "мир, 🕊"})
expect(bob.ask(DEL, {"index": str(mails[0]["id"])}), 0, "OK")
expect(bob.ask(OPEN, {"index": "1"}), ERROR, "Mail with such index does not exist")
for c in alice, bob, other:
    c.send(QUIT, None)
    assert c.sock.recv(1) == b"", "an answer to quit"

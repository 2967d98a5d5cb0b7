"""The course protocol byte by byte, as its client speaks it: struct for the frame, json for the body, two plain recv calls.

    python3 course.py HOST PORT ALICE BOB STRANGER

ALICE and BOB have empty mailboxes and are open to the protocol; STRANGER is an address that is not here.
"""
import json, socket, struct, sys, time

host, port, alice, bob, stranger = sys.argv[1:]
OK, ERROR = (0, "OK"), -2


class Client:
    def __init__(self):
        self.sock = socket.create_connection((host, int(port)), 30)

    def raw(self, data):
        self.sock.sendall(data)
        return self.reply()

    def reply(self):
        """As the course client reads: 8 bytes, then one recv for the whole body."""
        head = self.sock.recv(8)
        if not head:
            return None
        kind, length = struct.unpack("!ii", head)
        body = self.sock.recv(length)
        assert len(body) == length, "reply of %d bytes came in pieces (%d)" % (length, len(body))
        return kind, json.loads(body.decode("utf-8"))

    def call(self, kind, body):
        data = json.dumps(body).encode("utf-8")
        return self.raw(struct.pack("!ii", kind, len(data)) + data)

    def entry(self, name):
        return self.call(0, {"name": name})

    def send(self, to, header, text):
        return self.call(1, {"to": to, "header": header, "text": text})

    def mailbox(self):
        kind, mails = self.call(2, None)
        assert kind == 2 and isinstance(mails, list), (kind, mails)
        return mails

    def open(self, index):
        return self.call(3, {"index": index})

    def delete(self, index):
        return self.call(4, {"index": index})

    def closed(self):
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


def expect(what, got, want):
    assert got == want, "%s: got %r, want %r" % (what, got, want)
    print("ok  ", what)


def refused(what, got):
    assert got is not None and got[0] == ERROR and isinstance(got[1], str) and got[1], "%s: got %r, want -2 and a text" % (what, got)
    print("ok   %s: %s" % (what, got[1]))


a = Client()
expect("the very bytes of entry's answer", (a.sock.sendall(struct.pack("!ii", 0, len(b'{"name": "%s"}' % alice.encode())) + b'{"name": "%s"}' % alice.encode()),
                                             a.sock.recv(100))[1], b'\0\0\0\0\0\0\0\4"OK"')
expect("an empty mailbox", a.call(2, None), (2, []))
expect("open of nothing", a.open("1"), (ERROR, "Mail with such index does not exist"))
expect("del of nothing", a.delete("1"), (ERROR, "Mail with such index does not exist"))
expect("send", a.send(alice, "тема ü", "some text\nsecond line\n.\nend"), OK)
mails = a.mailbox()
expect("one mail", len(mails), 1)
expect("its keys in order", list(mails[0]), ["id", "source", "destination", "header", "text"])
expect("its content", {k: mails[0][k] for k in ("source", "destination", "header")}, {"source": alice, "destination": alice, "header": "тема ü"})
expect("its text", mails[0]["text"].rstrip("\n"), "some text\nsecond line\n.\nend")
first = mails[0]["id"]
expect("open by string", a.open(str(first)), (3, mails[0]))
expect("open by number", a.open(first), (3, mails[0]))

b = Client()
expect("the same address twice", b.entry(alice), (ERROR, "Such user is already logged in"))
refused("a command after a refused entry", b.call(2, None))
expect("another address after that", b.entry(bob), OK)
expect("mail to a stranger", b.send(stranger, "x", "y"), (ERROR, "Invalid destination address"))
for i in range(3):
    expect("mail to the other", b.send(alice, "from bob %d" % i, "text %d" % i), OK)
mails = a.mailbox()
expect("all there, oldest first", [m["header"] for m in mails], ["тема ü", "from bob 0", "from bob 1", "from bob 2"])
expect("from whom", mails[1]["source"], bob)
expect("del", a.delete(str(mails[1]["id"])), OK)
expect("del again", a.delete(str(mails[1]["id"])), (ERROR, "Mail with such index does not exist"))
expect("open of what was deleted", a.open(str(mails[1]["id"])), (ERROR, "Mail with such index does not exist"))
expect("ids stay", [m["id"] for m in a.mailbox()], [mails[0]["id"], mails[2]["id"], mails[3]["id"]])
expect("del the newest", a.delete(mails[3]["id"]), OK)
expect("mail after that", b.send(alice, "later", "text"), OK)
ids = [m["id"] for m in a.mailbox()]
assert len(set(ids)) == 3 and mails[3]["id"] not in ids and mails[1]["id"] not in ids, "an id was given twice: %r" % ids
print("ok   no id is given twice")

# Everything that is wrong but leaves the frame intact: -2, and the session goes on.
c = Client()
refused("mailbox before entry", c.call(2, None))
refused("send before entry", c.send(alice, "x", "y"))
refused("open before entry", c.open("1"))
refused("del before entry", c.delete("1"))
refused("not JSON", c.raw(struct.pack("!ii", 0, 5) + b"{nope"))
refused("not UTF-8", c.raw(struct.pack("!ii", 0, 2) + b"\xff\xfe"))
refused("an empty body", c.raw(struct.pack("!ii", 0, 0)))
refused("entry without name", c.call(0, {}))
refused("entry with null", c.call(0, None))
refused("entry with a list", c.call(0, [1]))
refused("entry with a number for a name", c.call(0, {"name": 5}))
refused("entry with what is no address", c.entry("no address"))
refused("entry with an empty name", c.entry(""))
refused("entry with CR LF", c.entry(bob + "\r\nX: y"))
refused("an unknown type", c.call(77, None))
refused("a negative type", c.call(-1, None))
b.sock.sendall(struct.pack("!ii", 5, 4) + b"null")
expect("quit closes", b.closed(), True)
for _ in range(100):  # the server learns of the end in its own time
    got = c.entry(bob)
    if got == OK:
        break
    time.sleep(0.05)
expect("entry once the other is gone", got, OK)
for body in (None, {}, {"to": alice}, {"to": alice, "header": "x"}, {"header": "x", "text": "y"}, {"to": 1, "header": "x", "text": "y"},
             {"to": "no address", "header": "x", "text": "y"}, {"to": alice, "header": "x\r\nBcc: y@z.test", "text": "y"},
             {"to": alice + "\r\nX: y", "header": "x", "text": "y"}, {"to": alice, "header": "x\0", "text": "y"}):
    refused("send of %s" % json.dumps(body), c.call(1, body))
for body in (None, {}, {"index": None}, {"index": ""}, {"index": "x"}, {"index": "-1"}, {"index": "99999999999999999999"}, {"index": [1]}, {"index": 1.5}):
    refused("open of %s" % json.dumps(body), c.call(3, body))
    refused("del of %s" % json.dumps(body), c.call(4, body))
expect("after all that, still in", c.send(alice, "x" * 500, "é" * 10000), OK)
expect("a long text is whole", a.open(str(a.mailbox()[-1]["id"]))[1]["text"].rstrip("\n"), "é" * 10000)

# Frames that cannot be trusted: -2, then the end of this session and of no other.
for what, head in (("a negative length", struct.pack("!ii", 2, -1)), ("the smallest length", struct.pack("!ii", 2, -2**31)),
                   ("a length above the limit", struct.pack("!ii", 1, 2**31 - 1))):
    d = Client()
    refused(what, d.raw(head + b"null"))
    expect(what + " ends the session", d.closed(), True)
d = Client()
d.sock.sendall(b"\0\0")  # half a header, and gone
d.sock.close()
d = Client()
d.sock.sendall(struct.pack("!ii", 0, 100) + b'{"na')  # half a body, and gone
d.sock.close()

# A listing that would not fit in one reply: whole JSON, the newest mails, oldest first.
for i in range(12):
    expect("a big mail", c.send(alice, "big %d" % i, "z" * 9000), OK)
head = struct.pack("!ii", 2, 4) + b"null"
a.sock.sendall(head)
kind, length = struct.unpack("!ii", a.sock.recv(8))
body = b""
while len(body) < length:
    body += a.sock.recv(length - len(body))
assert length <= 64 * 1024, "a listing of %d bytes" % length
listed = [m["header"] for m in json.loads(body)]
bigs = [h for h in listed if h.startswith("big")]
assert listed[-1] == "big 11" and bigs == ["big %d" % i for i in range(12 - len(bigs), 12)], listed
print("ok   a listing of %d bytes with %d mails" % (length, len(listed)))
expect("open gives the whole text", a.open(str(json.loads(body)[-1]["id"]))[1]["text"].rstrip("\n"), "z" * 9000)
a.sock.sendall(struct.pack("!ii", 5, 4) + b"null")
expect("quit", a.closed(), True)

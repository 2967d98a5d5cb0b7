"""The chat lab's mail client: smtplib and imaplib called as it calls them. Then the rest of what the two modules can do.

    python3 mail_lab.py HOST SUBMISSION SUBMISSIONS IMAP IMAPS ALICE BOB PASSWORD
"""
import email, email.policy, imaplib, smtplib, ssl, sys, time
from email.message import EmailMessage

host, submission, submissions, imap, imaps, alice, bob, password = sys.argv[1:]
trust = ssl.create_default_context()
trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE


def wait(what, find):
    for _ in range(200):
        found = find()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain: " + what)


def lines(part):
    return part.get_content().replace("\r\n", "\n")


# As the lab sends: a bare line without any header.
text = "hello from the chat, no header at all"
server = smtplib.SMTP(host, int(submission))
server.starttls(context=trust)
server.login(alice, password)
assert server.sendmail(alice, bob, text) == {}
server.quit()

# As the lab reads.
mail = imaplib.IMAP4_SSL(host, int(imaps), ssl_context=trust)
mail.login(bob, password)
assert mail.select("inbox")[0] == "OK"


def newest():
    mail.noop()
    result, data = mail.uid("search", None, "ALL")
    assert result == "OK", data
    return data[0].split()


uid = wait("the lab's mail", newest)[-1]
result, data = mail.uid("fetch", uid, "(RFC822)")
assert result == "OK", data
got = email.message_from_bytes(data[0][1], policy=email.policy.default)
assert got.get_content().strip() == text, got.as_string()
assert got["From"].addresses[0].addr_spec == alice and got["To"].addresses[0].addr_spec == bob, got.as_string()
assert got["Date"].datetime and got["Message-ID"].startswith("<"), got.as_string()
print("ok   the lab's bare line")

# Whole messages by all of submission's ways, with what smtplib negotiates by itself.
m = EmailMessage(policy=email.policy.SMTP)
m["From"], m["To"], m["Subject"] = alice, bob, "Grüße mit Anhang"
m.set_content("Zeile\n.\nnoch eine\n")
m.add_attachment(bytes(range(256)) * 40, maintype="application", subtype="octet-stream", filename="Anhang ü.bin")
with smtplib.SMTP_SSL(host, int(submissions), context=trust) as server:
    server.login(alice, password)
    server.send_message(m)
    assert server.has_extn("pipelining") and server.has_extn("8bitmime") and server.has_extn("smtputf8") and server.has_extn("size")
    try:
        server.sendmail(alice, ["nobody@" + bob.split("@")[1]], "x")
        raise AssertionError("a recipient that is not there was accepted")
    except smtplib.SMTPRecipientsRefused as refused:
        (code, reason), = refused.recipients.values()
        assert code == 550 and reason.startswith(b"5.1.1"), (code, reason)
    try:
        server.mail(bob)
        code, reason = server.rcpt(alice)
        assert code >= 500, "alice may send as bob: %d %r" % (code, reason)
    finally:
        server.rset()
try:
    with smtplib.SMTP_SSL(host, int(submissions), context=trust) as server:
        server.login(alice, "wrong")
    raise AssertionError("a wrong password was accepted")
except smtplib.SMTPAuthenticationError as refused:
    assert refused.smtp_code == 535, refused

uid = wait("the attachment", lambda: mail.noop() and mail.uid("search", None, "SUBJECT", "Anhang")[1][0].split())[-1]
got = email.message_from_bytes(mail.uid("fetch", uid, "(BODY.PEEK[])")[1][0][1], policy=email.policy.default)
assert got["Subject"] == "Grüße mit Anhang" and lines(got.get_body()) == "Zeile\n.\nnoch eine\n", got.as_string()[:2000]
attachment, = got.iter_attachments()
assert attachment.get_filename() == "Anhang ü.bin" and attachment.get_content() == bytes(range(256)) * 40
print("ok   attachment and non-ASCII subject")

# SMTPUTF8, which smtplib asks for when an address needs it.
m = EmailMessage(policy=email.policy.SMTPUTF8)
m["From"], m["To"], m["Reply-To"], m["Subject"] = alice, bob, "jörg@dömäin.test", "привет"
m.set_content("текст\n")
with smtplib.SMTP(host, int(submission)) as server:
    server.starttls(context=trust)
    server.login(alice, password)
    server.send_message(m, mail_options=["SMTPUTF8", "BODY=8BITMIME"])
uid = wait("the SMTPUTF8 mail", lambda: mail.noop() and mail.uid("search", "CHARSET", "UTF-8", "SUBJECT", '"привет"'.encode())[1][0].split())[-1]
got = email.message_from_bytes(mail.uid("fetch", uid, "(BODY.PEEK[])")[1][0][1], policy=email.policy.default)
assert got["Subject"] == "привет" and "jörg@dömäin.test" in got["Reply-To"] and lines(got) == "текст\n", got.as_string()
print("ok   SMTPUTF8")

# The rest of imaplib.
plain = imaplib.IMAP4(host, int(imap))
assert "STARTTLS" in plain.capabilities, plain.capabilities
plain.starttls(ssl_context=trust)
plain.authenticate("PLAIN", lambda _: b"\0" + alice.encode() + b"\0" + password.encode())
for call in (lambda: plain.create('"A folder"'), lambda: plain.subscribe('"A folder"'), lambda: plain.select('"A folder"'),
             lambda: plain.append('"A folder"', r"(\Draft)", imaplib.Time2Internaldate(1e9), b"Subject: draft\r\n\r\nbody\r\n"),
             lambda: plain.status('"A folder"', "(MESSAGES UIDNEXT UIDVALIDITY)"), lambda: plain.lsub(), lambda: plain.noop(),
             lambda: plain.store("1", "+FLAGS", r"(\Flagged keyword)"), lambda: plain.copy("1", "Archive"), lambda: plain.check(),
             lambda: plain.rename('"A folder"', "Other"), lambda: plain.select("Other"), lambda: plain.expunge()):
    result, data = call()
    assert result == "OK", data
result, data = plain.fetch("1", "(FLAGS INTERNALDATE RFC822.SIZE)")
assert b"\\Draft" in data[0] and b"\\Flagged" in data[0] and b"keyword" in data[0] and b"RFC822.SIZE 24" in data[0], data
assert imaplib.Internaldate2tuple(data[0]) is not None and time.mktime(imaplib.Internaldate2tuple(data[0])) == 1e9, data
assert plain.store("1", "+FLAGS", r"(\Deleted)")[0] == "OK" and plain.expunge() == ("OK", [b"1"])
assert plain.close()[0] == "OK" and plain.delete("Other")[0] == "OK" and plain.unsubscribe('"A folder"')[0] == "OK"
assert plain.select("Other")[0] == "NO" and plain.select("Archive", readonly=True)[0] == "OK"
assert plain.logout()[0] == "BYE" and mail.logout()[0] == "BYE"
try:
    imaplib.IMAP4_SSL(host, int(imaps), ssl_context=trust).login(bob, "wrong")
    raise AssertionError("a wrong password was accepted")
except imaplib.IMAP4.error as refused:
    assert "AUTHENTICATIONFAILED" in str(refused), refused
print("ok   imaplib's commands")

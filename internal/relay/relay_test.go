package relay

import (
	"testing"
	"testing/synctest"
)

func TestPipelinedDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dns.exchange("partner.test", 10, "mx1.partner.test", "192.0.2.7")
		w.serve("192.0.2.7", w.script(nil, `
			S: 220 mx1.partner.test ESMTP
			C: EHLO us.test
			S: 250-mx1.partner.test greets us.test
			S: 250-PIPELINING
			S: 250 SIZE 1000000
			C: MAIL FROM:<a@us.test> SIZE=19
			C: RCPT TO:<b@partner.test>
			C: RCPT TO:<c@partner.test>
			C: RCPT TO:<d@partner.test>
			C: DATA
			S: 250 2.1.0 ok
			S: 250 2.1.5 ok
			S: 550 5.1.1 no such user
			S: 452-4.2.2 mailbox
			S: 452 4.2.2 full
			S: 354 go
			D: Subject: hi\r\n\r\nhi\r\n
			S: 250 2.0.0 queued as XYZ
		`))
		r := w.relay(nil)
		out := try(t, r, mail(hi, "b@partner.test", "c@partner.test", "d@partner.test"))
		want(t, out[0], "delivered 250 2.0.0 queued as XYZ")
		want(t, out[1], "failed 550 5.1.1 no such user")
		want(t, out[2], "deferred 452 4.2.2 mailbox full")
		if out[0].Remote != "mx1.partner.test [192.0.2.7]:25" || out[0].TLS != "" || out[0].Onward {
			t.Errorf("%+v", out[0])
		}
	})
}

// Package e2e drives a running mailsrv with the programs that people use: swaks, curl, mbsync, msmtp, mutt, Thunderbird,
// Python's smtplib and imaplib, the course lab's client. There is nothing in it but tests.
//
// They run with MAILSRV_E2E=1, which leaves out what needs a program that is not installed, or with MAILSRV_E2E=require
// (make test), which does not. Every test starts a server of its own, built from this tree with the race detector, on free
// ports of loopback and in a temporary folder.
package e2e

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// texts is all that is said to a person in one language. What the server says is passed on as it is.
type texts struct {
	welcome, prompt, header, text, password string // no line end is added to these
	success, mailbox, bye                   string

	refused    string // what the server said
	unknown    string // the command
	usage      string // the command and its argument
	badAddress string // the address
	notEntered string
	longLine   string // the limit
	notUTF8    string
	cutShort   string // the command whose questions were not all answered

	away, noHost, slow, cut, half, notTLS, noTrust, garbled, broken string
}

// languages are the texts by the name that -lang takes. The Russian ones that the lab's sample shows are word for word the sample's,
// its slips of the pen and its spaces at line ends included: people compare.
var languages = map[string]*texts{
	"ru": {
		welcome: "Добро пожаловать в почтовый сервис! \n" +
			"Поддерживаемые команды: \n" +
			"entry \"username\" - подключение к серверу по логину \n" +
			"send Адрес получателся - отправить письмо, после этой команды сервер запросит заголовок письма, а потом текст\n" +
			"mailbox - получение всех писем на вашем ящике\n" +
			"open \"id\" - открытие письма по идентификатору (узнать id писем можно по результату команды mailbox)\n" +
			"del \"id\" - удаление письма по идентификатору (узнать id писем можно по результату команды mailbox)\n" +
			"quit - принудительное отключение от сервера\n" +
			"\n        \n",
		prompt:   "Введите команду: ",
		header:   "ВВедите заголовок письма: ",
		text:     "Введите текст письма: ",
		password: "Введите пароль: ",
		success:  "Success.",
		mailbox:  "Mailbox",
		bye:      "Подключение разорвано",

		refused:    "Ошибка: %s",
		unknown:    "Неизвестная команда %q. Есть entry, send, mailbox, open, del и quit",
		usage:      "Нужно так: %s %s",
		badAddress: "%q - не адрес вида something@something.something",
		notEntered: "Сначала подключитесь к ящику командой entry",
		longLine:   "Строка длиннее %d байт, она не отправлена",
		notUTF8:    "Строка не в UTF-8, она не отправлена",
		cutShort:   "Ввод закончился посреди команды %s, она не отправлена",

		away:    "Сервер недоступен: %v",
		noHost:  "Сервер не найден: %v",
		slow:    "Сервер не отвечает",
		cut:     "Сервер закрыл соединение",
		half:    "Сервер закрыл соединение посреди ответа",
		notTLS:  "Сервер не говорит по TLS: попробуйте без -tls",
		noTrust: "Сертификату сервера нельзя доверять: %v (взять любой: -insecure)",
		garbled: "Непонятный ответ сервера: %v",
		broken:  "Соединение с сервером потеряно: %v",
	},
	"en": {
		welcome: "Welcome to the mail service!\n" +
			"Commands:\n" +
			"entry \"username\" - enter the mailbox of that address\n" +
			"send address - send a mail; its header is asked for next, then its text\n" +
			"mailbox - all mails in your mailbox\n" +
			"open \"id\" - open a mail (mailbox shows the ids)\n" +
			"del \"id\" - delete a mail (mailbox shows the ids)\n" +
			"quit - leave the server\n\n",
		prompt:   "Command: ",
		header:   "Header: ",
		text:     "Text: ",
		password: "Password: ",
		success:  "Success.",
		mailbox:  "Mailbox",
		bye:      "Disconnected",

		refused:    "Error: %s",
		unknown:    "Unknown command %q. There are entry, send, mailbox, open, del and quit",
		usage:      "Usage: %s %s",
		badAddress: "%q is not an address like something@something.something",
		notEntered: "Enter a mailbox first, with the command entry",
		longLine:   "A line of more than %d bytes was not sent",
		notUTF8:    "A line that is not UTF-8 was not sent",
		cutShort:   "The input ended in the middle of the command %s, which was not sent",

		away:    "The server is away: %v",
		noHost:  "No such server: %v",
		slow:    "The server does not answer",
		cut:     "The server closed the connection",
		half:    "The server closed the connection in the middle of an answer",
		notTLS:  "The server does not speak TLS: try without -tls",
		noTrust: "The server's certificate cannot be trusted: %v (to take any: -insecure)",
		garbled: "The server's answer makes no sense: %v",
		broken:  "The connection to the server is lost: %v",
	},
}

// explain says what happened to the connection.
func (t *texts) explain(err error) string {
	var (
		dns     *net.DNSError
		op      *net.OpError
		timeout net.Error
		record  tls.RecordHeaderError
		verify  *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		bad     *badReply
	)
	switch {
	case errors.As(err, &bad):
		return fmt.Sprintf(t.garbled, bad)
	case errors.As(err, &record):
		return t.notTLS
	case errors.As(err, &verify), errors.As(err, &unknown):
		return fmt.Sprintf(t.noTrust, err)
	case errors.As(err, &dns):
		return fmt.Sprintf(t.noHost, err)
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Sprintf(t.away, err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return t.slow
	case errors.Is(err, io.ErrUnexpectedEOF):
		return t.half
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return t.cut
	}
	return fmt.Sprintf(t.broken, err)
}

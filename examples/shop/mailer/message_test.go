package main

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mailerv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/mailer/v1"
)

func TestRender(t *testing.T) {
	picture := bytes.Repeat([]byte{1, 2, 3}, 500)
	raw, err := render("1@shop.example", &mail.Address{Name: "Ada", Address: "ada@example.com"}, &mailerv1.SendOrderConfirmationRequest{
		OrderId:    "7\r\nBcc: eve@example.com",
		Lines:      []*mailerv1.ConfirmationLine{{Name: "<Oak> Chair", Quantity: 2, AmountCents: 1205, Thumbnail: picture}},
		TotalCents: 1205,
	})
	if err != nil {
		t.Fatal(err)
	}
	message, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if message.Header.Get("Bcc") != "" {
		t.Error("an order id became a header")
	}
	_, params, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(message.Body, params["boundary"])
	text := readPart(t, parts)
	for _, want := range []string{"2 × &lt;Oak&gt; Chair", "€ 12.05", "cid:line0"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	decoded, err := base64.StdEncoding.DecodeString(string(readPart(t, parts)))
	if err != nil || !bytes.Equal(decoded, picture) {
		t.Errorf("picture of %d bytes came out as %d, %v", len(picture), len(decoded), err)
	}
}

func readPart(t *testing.T, parts *multipart.Reader) []byte {
	t.Helper()
	part, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(part)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSendRefuses(t *testing.T) {
	line := []*mailerv1.ConfirmationLine{{Name: "Chair"}}
	for name, req := range map[string]*mailerv1.SendOrderConfirmationRequest{
		"nobody":     {Lines: line},
		"no address": {To: "ada", Lines: line},
		"two lines":  {To: "ada@example.com\r\nBcc: eve@example.com", Lines: line},
		"no lines":   {To: "ada@example.com"},
	} {
		if _, err := new(server).SendOrderConfirmation(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
}

package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"

	mailerv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/mailer/v1"
)

var page = template.Must(template.New("confirmation").Funcs(template.FuncMap{"euros": euros}).Parse(`<h1>Thank you for your order</h1>
<p>Order {{.GetOrderId}}</p>
<table>
{{range $i, $line := .GetLines}}<tr><td><img src="cid:line{{$i}}" alt=""></td><td>{{$line.GetQuantity}} × {{$line.GetName}}</td><td>{{euros $line.GetAmountCents}}</td></tr>
{{end}}</table>
<p>Total {{euros .GetTotalCents}}</p>
`))

func euros(cents int64) string { return fmt.Sprintf("€ %d.%02d", cents/100, cents%100) }

// render writes the message with its pictures inside, as RFC 2387 has it.
func render(id string, to *mail.Address, req *mailerv1.SendOrderConfirmationRequest) ([]byte, error) {
	var out bytes.Buffer
	parts := multipart.NewWriter(&out)
	fmt.Fprintf(&out, "Message-ID: <%s>\r\n", id)
	fmt.Fprintf(&out, "From: Shop <orders@shop.example>\r\n")
	fmt.Fprintf(&out, "To: %s\r\n", to)
	fmt.Fprintf(&out, "Subject: %s\r\n", mime.QEncoding.Encode("utf-8", "Your order "+req.GetOrderId()))
	fmt.Fprintf(&out, "MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=%q\r\n\r\n", parts.Boundary())

	if err := writePage(parts, req); err != nil {
		return nil, err
	}
	for i, line := range req.GetLines() {
		if err := writePicture(parts, fmt.Sprintf("line%d", i), line.GetThumbnail()); err != nil {
			return nil, err
		}
	}
	if err := parts.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func writePage(parts *multipart.Writer, req *mailerv1.SendOrderConfirmationRequest) error {
	part, err := parts.CreatePart(textproto.MIMEHeader{
		"Content-Type":              {"text/html; charset=utf-8"},
		"Content-Transfer-Encoding": {"quoted-printable"},
	})
	if err != nil {
		return err
	}
	body := quotedprintable.NewWriter(part)
	if err := page.Execute(body, req); err != nil {
		return err
	}
	return body.Close()
}

// writePicture breaks the lines at 76 characters, as RFC 2045 asks.
func writePicture(parts *multipart.Writer, id string, png []byte) error {
	part, err := parts.CreatePart(textproto.MIMEHeader{
		"Content-Type":              {"image/png"},
		"Content-ID":                {"<" + id + ">"},
		"Content-Transfer-Encoding": {"base64"},
	})
	if err != nil {
		return err
	}
	text := base64.StdEncoding.AppendEncode(nil, png)
	for len(text) > 0 {
		n := min(76, len(text))
		if _, err := fmt.Fprintf(part, "%s\r\n", text[:n]); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

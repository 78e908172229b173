package config

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"strings"
)

// A Part of user data: one document or script.
type Part struct {
	Name string // what findings about it are filed under: its file name, "part 2", or "" if it is all
	Kind Kind   // never Empty or Multipart
	Text string
}

// Open unpacks user data: gzip, and MIME multipart whose parts may be either again.
// Parts come in order; the empty ones are left out. A part that cannot be unpacked
// is named by a finding and left out; the lines of findings are those of the
// unpacked part, or 1.
func Open(data []byte) ([]Part, []Finding) {
	o := opener{left: MaxUnpacked}
	if len(data) > MaxUnpacked {
		o.fail("", "user data of %d bytes: more than %d are not read", len(data), MaxUnpacked)
		return nil, o.findings
	}
	o.open(parcel{data: data})
	return o.parts, o.findings
}

type opener struct {
	parts    []Part
	findings []Finding
	left     int // bytes that may still come out of packings
	seen     int // parts so far, whatever they are
}

// A parcel is data with what its envelope says of it.
type parcel struct {
	name    string
	as      Kind // by its MIME type; "" if it has to be looked at
	data    []byte
	nesting int
}

func (o *opener) fail(name, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if name != "" {
		msg = name + ": " + msg
	}
	o.findings = append(o.findings, Finding{Line: 1, Severity: Error, Message: msg})
}

func (o *opener) open(p parcel) {
	if p.nesting > MaxNesting {
		o.fail(p.name, "user data is packed more than %d deep", MaxNesting)
		return
	}
	if bytes.HasPrefix(p.data, gzipMagic) {
		data, err := o.gunzip(p.data)
		if err != nil {
			o.fail(p.name, "unpack gzip: %v", err)
			return
		}
		o.open(parcel{name: p.name, as: p.as, data: data, nesting: p.nesting + 1})
		return
	}
	kind := Classify(p.data)
	switch {
	case kind == Empty:
		return
	case kind == Multipart:
		o.multipart(p)
		return
	case p.as != "":
		kind = p.as
	}
	o.parts = append(o.parts, Part{Name: p.name, Kind: kind, Text: string(p.data)})
}

// gunzip unpacks data whole: what was cut off or damaged is an error.
func (o *opener) gunzip(data []byte) ([]byte, error) {
	out, err := gunzip(data, o.left)
	o.left -= len(out)
	return out, err
}

// gzipMagic is what gzip begins with (RFC 1952, section 2.3.1).
var gzipMagic = []byte{0x1f, 0x8b}

var errTooLarge = fmt.Errorf("it holds more than %d bytes in all", MaxUnpacked)

// gunzip unpacks at most limit bytes.
func gunzip(data []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(data, gzipMagic) {
		return nil, errors.New("it does not begin with 1f 8b")
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, unpackError(err)
	}
	out, err := io.ReadAll(io.LimitReader(z, int64(limit)+1))
	if err != nil {
		return nil, unpackError(err)
	}
	if len(out) > limit {
		return nil, errTooLarge
	}
	return out, nil
}

func unpackError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("it ends before its end: something was cut off")
	}
	return err
}

func (o *opener) multipart(p parcel) {
	h, _ := multipartHeader(p.data)
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case err != nil:
		o.fail(p.name, "read Content-Type: %v", err)
		return
	case mediaType != "multipart/mixed":
		o.fail(p.name, "user data in several parts must be multipart/mixed, not %s", mediaType)
		return
	case params["boundary"] == "":
		o.fail(p.name, "Content-Type names no boundary between the parts")
		return
	}
	r := multipart.NewReader(bytes.NewReader(p.data), params["boundary"])
	for {
		part, err := r.NextRawPart()
		if err == io.EOF {
			return
		}
		if err != nil {
			o.fail(p.name, "read multipart: %v", unpackError(err))
			return
		}
		if o.seen++; o.seen > MaxParts {
			o.fail(p.name, "user data has more than %d parts", MaxParts)
			return
		}
		if !o.part(part, p.nesting) {
			return
		}
	}
}

// part opens one part of a multipart; false if no other can follow.
func (o *opener) part(part *multipart.Part, nesting int) bool {
	name := part.FileName()
	if name == "" {
		name = fmt.Sprintf("part %d", o.seen)
	}
	body, err := io.ReadAll(io.LimitReader(part, MaxUnpacked))
	if err != nil {
		o.fail(name, "read: %v", unpackError(err))
		return false
	}
	data, err := untransfer(part.Header.Get("Content-Transfer-Encoding"), body)
	if err != nil {
		o.fail(name, "%v", err)
		return true
	}
	mediaType, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
	p := parcel{name: name, data: data, nesting: nesting + 1}
	switch mediaType {
	case "text/cloud-config":
		p.as = CloudConfig
	case "text/x-shellscript":
		p.as = Script
	}
	if strings.HasPrefix(mediaType, "multipart/") {
		// The header of a part is what a multipart begins with when it is all.
		p.data = append(headerText(part.Header), data...)
	}
	o.open(p)
	return true
}

func headerText(h textproto.MIMEHeader) []byte {
	return []byte("Content-Type: " + h.Get("Content-Type") + "\r\n\r\n")
}

// untransfer undoes a transfer encoding (RFC 2045, section 6).
func untransfer(encoding string, body []byte) ([]byte, error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "7bit", "8bit", "binary":
		return body, nil
	case "base64":
		out, err := decodeBase64(string(body))
		if err != nil {
			return nil, fmt.Errorf("undo base64: %w", err)
		}
		return out, nil
	case "quoted-printable":
		out, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(body)))
		if err != nil {
			return nil, fmt.Errorf("undo quoted-printable: %w", err)
		}
		return out, nil
	}
	return nil, fmt.Errorf("unknown Content-Transfer-Encoding %q; known are base64, quoted-printable, 7bit, 8bit, binary", encoding)
}

// decodeBase64 undoes base64 broken into lines.
func decodeBase64(s string) ([]byte, error) {
	s = strings.Join(strings.Fields(s), "")
	out, err := base64.StdEncoding.DecodeString(s)
	var at base64.CorruptInputError
	if errors.As(err, &at) && int(at) >= len(s)/4*4 {
		return nil, fmt.Errorf("%w; its length of %d is no multiple of 4: something was cut off", err, len(s))
	}
	return out, err
}
